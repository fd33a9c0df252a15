"""Video files and live streams: every frame, its own time, upright, in its true colours."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from clips import RATE, SIZE, number_of, picture, write_clip

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.protocols import Source
from ape_stream.sources.video import VideoSource

CLIPS = Path(__file__).parents[3].parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")


def read(spec, **options):
    with VideoSource(str(spec), **options) as source:
        return list(source)


def numbers(frames):
    return [number_of(frame.image) for frame in frames]


# ----------------------------------------------------------------------------- every frame, in time


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("bframes.mp4", {"options": {"bf": "3", "g": "12"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("av1.mkv", {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
        ("a.ts", {"container": "mpegts"}),
        ("ten.mp4", {"pixels": "yuv420p10le"}),
        ("full.mp4", {"pixels": "yuvj420p"}),
        ("444.mkv", {"pixels": "yuv444p"}),
        ("mjpeg.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ],
)
def test_every_frame_comes_once_with_its_time(tmp_path, name, options):
    path = write_clip(tmp_path / name, frames=25, **options)
    frames = read(path, name="clip")
    assert numbers(frames) == list(range(25))
    assert [frame.index for frame in frames] == list(range(25))
    start = frames[0].time_s  # MPEG-TS does not begin at 0
    times = [frame.time_s - start for frame in frames]
    np.testing.assert_allclose(times, np.arange(25) / RATE, atol=6e-4)
    assert {frame.stream for frame in frames} == {"clip"}
    assert all(frame.captured_ns > 0 for frame in frames)


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_variable_frame_rate_keeps_every_timestamp(tmp_path, name):
    times = np.cumsum([0, 33, 33, 250, 33, 500, 10, 11, 700, 33]).tolist()
    frames = read(write_clip(tmp_path / name, frames=10, times=times))
    assert [round(frame.time_s * 1000, 6) for frame in frames] == times


def test_a_source_is_a_source_and_may_be_read_twice(tmp_path):
    source = VideoSource(write_clip(tmp_path / "a.mp4"))
    assert isinstance(source, Source)
    assert not source.live
    with source:
        assert source.frame_count == 20
        assert numbers(source) == numbers(source) == list(range(20))


def test_a_length_and_a_rate_are_no_promise_of_a_frame_count(tmp_path):
    with VideoSource(write_clip(tmp_path / "a.mkv")) as source:
        assert source.frame_count is None


# --------------------------------------------------------------------- upright and in true colours


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_display_matrix_turns_the_picture(tmp_path, turn):
    # Display matrices of ISO/IEC 14496-12, rows a b u, c d v in 16.16: x' = ax + cy, y' = bx + dy.
    one = 1 << 16
    clockwise = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (one * v for v in clockwise[turn])
    path = write_clip(
        tmp_path / "phone.mp4",
        frames=3,
        first=0b00000101,
        setup=lambda stream: stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30]),
    )
    (image, *_) = (frame.image for frame in read(path))
    wanted = np.rot90(picture(0b00000101), -turn // 90)
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 3


def yuv(rgb, red, blue, *, full):
    """BT.601/709 equations: RGB 0..255 to 8-bit Y, Cb, Cr."""
    r, g, b = (v / 255 for v in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / 2 / (1 - blue), (r - y) / 2 / (1 - red)
    if full:
        return 255 * y, 128 + 255 * cb, 128 + 255 * cr
    return 16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(("tag", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
def test_colours_follow_the_declared_matrix_and_range(tmp_path, tag, red, blue, pixels, full):
    rgb = (200, 60, 30)
    depth = 4 if pixels.endswith("10le") else 1
    with av.open(str(tmp_path / "c.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        for k in range(3):
            frame = av.VideoFrame(64, 48, pixels)
            frame.pts, frame.colorspace, frame.color_range = k, tag, 2 if full else 1
            kind = np.uint16 if depth == 4 else np.uint8
            for plane, value in zip(frame.planes, yuv(rgb, red, blue, full=full), strict=True):
                samples = plane.buffer_size // np.dtype(kind).itemsize
                plane.update(np.full(samples, round(value * depth), kind).tobytes())
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for frame in read(tmp_path / "c.mp4"):
        assert np.abs(frame.image.reshape(-1, 3).mean(axis=0) - rgb[::-1]).max() <= 3


# ------------------------------------------------------------------------------- which stream


def two_streams(path):
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("libx264", rate=RATE) for _ in range(2)]
        for stream, size in zip(streams, (SIZE, (48, 64)), strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for k in range(10):
            for stream, first in zip(streams, (0, 100), strict=True):
                image = picture(first + k, (stream.height, stream.width))
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts = k
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return str(path)


def test_the_first_video_stream_is_the_default_and_others_can_be_chosen(tmp_path):
    path = two_streams(tmp_path / "two.mp4")
    assert numbers(read(path)) == list(range(10))
    assert numbers(read(path, stream=1)) == list(range(100, 110))
    assert read(path, stream=1)[0].size == (48, 64)
    with pytest.raises(SourceError, match="no video stream 2: choose 0 to 1"):
        read(path, stream=2)


# ---------------------------------------------------------------------------------- bad input


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_a_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("words, words\n" * 100)
    (tmp_path / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    for name in ("empty.mp4", "text.mp4", "noise.mkv", "missing.mp4"):
        with pytest.raises(SourceError) as error:
            read(tmp_path / name)
        reason = "No such file" if name == "missing.mp4" else "is not a video"
        assert name in one_line(error)
        assert reason in str(error.value)
        assert not isinstance(error.value, TruncatedError)


def test_a_folder_and_a_pipe_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4"):
        with pytest.raises(SourceError, match="is not a file"):
            read(path)


def write_sound(path):
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16_000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return str(path)


def test_audio_alone_is_no_video(tmp_path):
    with pytest.raises(SourceError, match="holds no video"):
        read(write_sound(tmp_path / "sound.m4a"))


def test_a_video_without_a_frame_is_refused(tmp_path):
    path = Path(write_clip(tmp_path / "a.mp4", frames=5))
    before, mark, rest = path.read_bytes().partition(b"mdat")
    pictures, index, tables = rest.partition(b"moov")
    path.write_bytes(before + mark + bytes(len(pictures) - 4) + pictures[-4:] + index + tables)
    with pytest.raises(SourceError, match="no frame that can be decoded"):
        read(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut.mp4", {"mux_options": {"movflags": "faststart"}, "options": {"bf": "0"}}),
        ("cut.mkv", {"options": {"bf": "0"}}),
        ("cut.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ],
)
@pytest.mark.parametrize("share", [0.6, 0.85])
def test_all_that_decodes_of_a_cut_file_comes_before_the_error(tmp_path, name, options, share):
    path = write_clip(tmp_path / name, frames=120, **options)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])
    frames = []
    with VideoSource(path) as source, pytest.raises(TruncatedError, match="frames were") as error:
        frames.extend(source)
    assert f" {len(frames)}" in one_line(error)
    assert 120 * share * 0.4 < len(frames) < 120
    assert numbers(frames) == list(range(len(frames)))


def test_a_whole_file_is_never_called_cut(tmp_path):
    """Long last frames, sound beyond the pictures and low rates are no damage."""
    slow = write_clip(tmp_path / "slow.mkv", frames=4, times=[0, 1000, 2000, 7000])
    assert len(read(slow)) == 4
    assert len(read(write_clip(tmp_path / "one.mp4", frames=1))) == 1


def test_damage_inside_costs_only_its_packets(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=90, options={"g": "5", "bf": "0"})
    data = bytearray(Path(path).read_bytes())
    middle = len(data) // 3
    data[middle : middle + 40] = b"\xff" * 40
    Path(path).write_bytes(data)
    frames = []
    try:
        with VideoSource(path) as source:
            frames.extend(source)
    except TruncatedError as error:
        assert "damaged" in str(error)  # noqa: PT017 (whether FFmpeg conceals it is its own affair)
    assert number_of(frames[-1].image) == 89
    assert len(frames) >= 80


def test_secrets_stay_out_of_messages():
    with pytest.raises(SourceError) as error:
        read("rtsp://user:geheim@127.0.0.1:9/cam", open_timeout_s=1.0)
    assert "geheim" not in one_line(error)


@pytest.mark.parametrize("option", ["stream", "open_timeout_s", "read_timeout_s", "reconnect_s"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match="time limits"):
        VideoSource("a.mp4", **{option: -1})


# ------------------------------------------------------------------------------------- real clips


@needs_clips
@pytest.mark.parametrize(
    ("name", "stream", "count", "size", "last_s"),
    [
        ("nasa_13013.mp4", 0, 325, (180, 320), 12.96),
        ("nasa_13013.mp4", 1, 390, (270, 480), 12.979633),
        ("h265_video.mp4", 0, 10, (128, 128), 0.9),
        ("h264_10bits.mp4", 0, 30, (200, 200), 29 / 30),
        ("av1_video.mkv", 0, None, (360, 640), None),
    ],
)
def test_real_clips_are_read_whole(name, stream, count, size, last_s):
    with av.open(str(CLIPS / name)) as container:
        packets = [p for p in container.demux(container.streams.video[stream]) if p.pts is not None]
        wanted = sorted(float(p.pts * p.time_base) for p in packets)
    frames = read(CLIPS / name, stream=stream)
    assert [frame.time_s for frame in frames] == pytest.approx(wanted, abs=1e-9)
    assert {frame.size for frame in frames} == {size}
    assert count in {None, len(frames)}
    assert last_s is None or frames[-1].time_s == pytest.approx(last_s, abs=1e-3)


# ------------------------------------------------------------------------------------ live streams


class Broadcast:
    """A TCP server on loopback that sends one MPEG-TS clip per connection, at its own pace."""

    def __init__(self, *clips, hold_s=0.0):
        self._server = socket.create_server(("127.0.0.1", 0))
        self._clips = clips
        self._hold_s = hold_s
        self._done = threading.Event()
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        for clip in self._clips:
            connection, _ = self._server.accept()
            with connection:
                connection.sendall(clip)
                self._done.wait(self._hold_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._done.set()
        self._server.close()
        self._thread.join(5)


@pytest.fixture(name="clip")
def _clip(tmp_path):
    path = write_clip(tmp_path / "live.ts", container="mpegts", options={"tune": "zerolatency"})
    return Path(path).read_bytes()


def test_a_live_stream_ends_with_its_connection_when_not_reconnected(clip):
    with Broadcast(clip) as camera:
        source = VideoSource(camera.url, open_timeout_s=1.0, reconnect_s=0)
        assert source.live  # before it is opened: the pipeline chooses its policy by it
        with source:
            assert source.frame_count is None
            assert numbers(source) == list(range(20))


def test_a_live_stream_that_breaks_off_goes_on_and_so_does_its_clock(clip):
    with Broadcast(clip, clip) as camera, VideoSource(camera.url, open_timeout_s=1.0) as source:
        frames = list(itertools.islice(source, 40))
    assert numbers(frames) == list(range(20)) * 2
    assert [frame.index for frame in frames] == list(range(40))
    times = np.diff([frame.time_s for frame in frames])
    assert (times > 0).all()
    assert times[19] < 3  # the pause, not a jump


def test_a_live_stream_that_stays_away_is_an_error(clip):
    with (
        Broadcast(clip) as camera,
        VideoSource(camera.url, open_timeout_s=1.0, reconnect_s=0.5) as source,
        pytest.raises(SourceError, match="gave no frame"),
    ):
        list(source)


def test_a_silent_live_stream_stops_in_time(clip):
    with Broadcast(clip, hold_s=30) as camera:
        source = VideoSource(camera.url, open_timeout_s=1.0, read_timeout_s=1.0, reconnect_s=0)
        start = time.monotonic()
        with source:
            assert len(list(source)) >= 19  # the last one waits for the start of the next
        assert time.monotonic() - start < 5


def test_leaving_from_another_thread_ends_the_reading(clip):
    with Broadcast(clip, hold_s=30) as camera:
        source = VideoSource(camera.url, open_timeout_s=1.0, read_timeout_s=1.0)
        source.__enter__()
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(source))
        reader.start()
        time.sleep(0.3)
        source.__exit__(None, None, None)
        reader.join(4)
        assert not reader.is_alive()
    assert len(seen) >= 1


def test_nobody_there_is_told_in_time():
    start = time.monotonic()
    with pytest.raises(SourceError, match="cannot open"):
        read("tcp://127.0.0.1:9", open_timeout_s=1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(SourceError):
        read(f"tcp://127.0.0.1:{mute.getsockname()[1]}", open_timeout_s=1.0)
    assert time.monotonic() - start < 5


def test_a_file_on_a_web_server_is_read_whole_as_a_file(tmp_path):
    write_clip(tmp_path / "a.mp4")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with VideoSource(f"http://127.0.0.1:{server.server_port}/a.mp4") as source:
                assert not source.live
                assert numbers(source) == list(range(20))
            with pytest.raises(SourceError, match="404"):
                read(f"http://127.0.0.1:{server.server_port}/none.mp4")
        finally:
            server.shutdown()
            thread.join()


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
def test_urls_are_live_unless_they_name_a_file(spec, live):
    assert VideoSource(spec).live is live
    assert VideoSource(spec, live=not live).live is not live
