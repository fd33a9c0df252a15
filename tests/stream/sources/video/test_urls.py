"""What has an end is read to its end once, by any URL; a failure is one line."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from clips import numbers, write_clip
from servers import Broadcast, folder, web

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.pipeline import Pipeline
from ape_stream.sources.video import VideoSource
from ape_stream.testing import OraclePerceiver
from ape_stream.types import PromptSet

FRAMES = 50


@pytest.mark.parametrize(
    ("spec", "live"),
    [
        ("clip.mp4", False),
        ("rtsp://gate/cam", True),
        ("http://host/clip.mp4?token=1", False),
        ("https://host/live.m3u8", True),
        ("udp://127.0.0.1:5000", True),
    ],
)
def test_before_it_is_opened_a_url_seems_live_unless_it_names_a_file(spec, live):
    assert VideoSource(spec).live is live
    assert VideoSource(spec, live=not live).live is not live


# ----------------------------------------------------------------------------- what has an end


def segments(tmp_path, frames=FRAMES, *, end=True):
    """An HLS stream of one-second segments, as `{name: bytes}`."""
    (tmp_path / "hls").mkdir()
    options = {"hls_time": "1", "hls_list_size": "0"}
    write_clip(
        tmp_path / "hls" / "list.m3u8",
        frames=frames,
        container="hls",
        options={"g": "30", "bf": "0"},
        mux_options=options,
    )
    files = {path.name: path.read_bytes() for path in (tmp_path / "hls").iterdir()}
    if not end:
        files["list.m3u8"] = files["list.m3u8"].replace(b"#EXT-X-ENDLIST\n", b"")
    return files


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("web")
    files = segments(tmp_path)
    for suffix in ("mp4", "mkv", "ts"):
        clip = write_clip(tmp_path / f"a.{suffix}", frames=FRAMES)
        files[f"bare-{suffix}"] = files[f"a.{suffix}"] = Path(clip).read_bytes()
    return files


@pytest.mark.parametrize("server", ["ranges", "length", "chunks"])
@pytest.mark.parametrize("name", ["bare-mp4", "bare-mkv", "bare-ts", "a.ts", "list.m3u8"])
def test_every_frame_is_read_once_for_any_server_and_name(files, name, server):
    answer = folder(files, ranges=server == "ranges", chunked=server == "chunks")
    with web(answer) as url, VideoSource(f"{url}/{name}?key=1") as source:
        # A transport stream in chunks has no length: it shows its end only when it comes.
        unknown = server == "chunks" and name.endswith("ts")
        assert source.live is unknown
        assert numbers(source) == list(range(FRAMES))


@pytest.mark.parametrize("name", ["bare-ts", "list.m3u8"])
def test_a_slow_model_drops_no_frame_of_what_has_an_end(files, name):
    class Slow(OraclePerceiver):
        def perceive(self, frames):
            time.sleep(0.005)
            return super().perceive(frames)

    with web(folder(files)) as url:
        source = VideoSource(f"{url}/{name}", name="web")
        with Pipeline([source], Slow(), PromptSet.of("cup")) as run:
            assert numbers(result.frame for result in run) == list(range(FRAMES))
        assert run.stats().dropped == 0
        assert run.outcome == "finished"


def test_what_the_user_says_counts_more_than_what_is_found(files, tmp_path):
    with (
        web(folder(files)) as url,
        VideoSource(f"{url}/bare-mp4", live=True, reconnect_s=0) as source,
    ):
        assert source.live
        assert source.frame_count is None
        assert numbers(source) == list(range(FRAMES))
    (tmp_path / "open").mkdir()
    with web(folder(segments(tmp_path / "open", end=False))) as url:
        with VideoSource(f"{url}/list.m3u8") as source:
            assert source.live
        with VideoSource(f"{url}/list.m3u8", live=False) as source:
            assert not source.live
            assert next(iter(source)).index == 0


def test_a_file_on_a_web_server_that_is_cut_short_is_reported(files):
    cut = {"bare": files["bare-mkv"][: len(files["bare-mkv"]) // 2]}
    frames = []
    with (
        web(folder(cut)) as url,
        VideoSource(f"{url}/bare") as source,
        pytest.raises(TruncatedError, match="cut short"),
    ):
        frames.extend(source)
    assert 0 < len(frames) < FRAMES


def test_what_is_not_there_is_named(files):
    with web(folder(files)) as url, pytest.raises(SourceError, match="404"):
        VideoSource(f"{url}/none.mp4").__enter__()


# ---------------------------------------------------------------------- peers that send no video


def serve(talk):
    """A port where every connection is handed to `talk`."""
    server = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    return server


def garbage(connection):
    with connection:
        try:
            for _ in range(40):
                connection.sendall(os.urandom(50_000))
        except OSError:
            pass


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp"])
def test_a_silent_peer_is_reported_as_silent(scheme):
    with serve(lambda _: None) as server:
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(SourceError, match=r"(no data for|sent no video for) 1 s$") as error:
            VideoSource(url, open_timeout_s=1.0).__enter__()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("talk", [garbage, socket.socket.close], ids=["garbage", "nothing"])
def test_a_peer_that_sends_no_video_is_reported_as_such(talk):
    with serve(talk) as server, pytest.raises(SourceError, match="sent no video, or one whose"):
        VideoSource(f"tcp://127.0.0.1:{server.getsockname()[1]}", open_timeout_s=2.0).__enter__()


def test_a_server_that_is_away_at_the_start_is_waited_for(tmp_path):
    clip = Path(write_clip(tmp_path / "a.ts")).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="refused"):
        VideoSource(f"tcp://127.0.0.1:{port}").__enter__()
    servers = []

    def come():
        time.sleep(0.7)
        servers.append(Broadcast(clip, port=port))

    late = threading.Thread(target=come)
    late.start()
    with VideoSource(f"tcp://127.0.0.1:{port}", wait_s=10, reconnect_s=0) as source:
        assert numbers(source) == list(range(20))
    late.join()
    servers[0].__exit__()


def test_the_wait_for_a_server_has_an_end():
    start = time.monotonic()
    with pytest.raises(SourceError, match="refused"):
        VideoSource("tcp://127.0.0.1:9", wait_s=1.2).__enter__()
    assert 0.5 < time.monotonic() - start < 5


def test_an_unreachable_peer_is_an_error_in_time():
    start = time.monotonic()
    with pytest.raises(SourceError, match="cannot open"):
        VideoSource("tcp://127.0.0.1:9", open_timeout_s=1.0).__enter__()
    assert time.monotonic() - start < 5
