"""Live streams: fresh frames, each once, on a clock that counts an outage in full and once."""

from __future__ import annotations

import io
import itertools
import os
import socket
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import RATE, image_of, jpeg, number_of, numbers, write_clip
from servers import Broadcast, folder, motion_jpeg, paced, web

from ape_stream.errors import SourceError
from ape_stream.sources.video import VideoSource


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


def test_a_file_that_is_read_as_live_ends_with_its_last_frame(tmp_path):
    path = write_clip(tmp_path / "a.ts", container="mpegts", options={"tune": "zerolatency"})
    with VideoSource(path, live=True) as source:
        assert numbers(itertools.islice(source, 40)) == list(range(20))


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


# ------------------------------------------------------------------------- properties of a frame


class Camera:
    """Encodes numbered frames as MPEG-TS, each at its time, and remembers when.

    Args:
        first: Number of the first frame.
        start_s: The encoder's time of the first frame.
        sent: Where the moment of each frame is kept, by its number.
    """

    def __init__(self, sent, *, first=0, start_s=0.0):
        self._sent, self._first = sent, first
        self._start = round(start_s * RATE)

    def parts(self, count, stall_at=None, stall_s=0.0):
        """The bytes of each frame when its moment has come; a stall delays all that follow."""
        buffer = io.BytesIO()
        times = [k / RATE + (stall_s if stall_at and k >= stall_at else 0) for k in range(count)]
        options = {"flush_packets": "1"}
        with av.open(buffer, "w", format="mpegts", options=options) as output:
            settings = {"tune": "zerolatency", "preset": "ultrafast", "g": "15"}
            stream = output.add_stream("libx264", rate=RATE, options=settings)
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
            for k in paced(times):
                frame = av.VideoFrame.from_ndarray(image_of(self._first + k), format="bgr24")
                frame.pts, frame.time_base = self._start + k, Fraction(1, RATE)
                output.mux(stream.encode(frame))
                self._sent[self._first + k] = time.monotonic()
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()


class Watched:
    """Frames of a live source with the moment that each was handed out."""

    def __init__(self, url, sent, until, **options):
        self.rows = []
        with VideoSource(url, read_timeout_s=1.0, **options) as source:
            for frame in source:
                now_s, number = time.monotonic(), number_of(frame.image)
                self.rows.append((number, frame.time_s, now_s - sent[number], sent[number]))
                if number >= until:
                    break

    def check(self, back, *, age_s=0.5, clock_s=0.25):
        """Nothing twice, fresh from number `back` on, and time that passed as it did outside."""
        seen = [row[0] for row in self.rows]
        assert seen == sorted(set(seen))
        times = [row[1] for row in self.rows]
        assert (np.diff(times) > 0).all()
        after = [row for row in self.rows if row[0] >= back]
        before = [row for row in self.rows if row[0] < back]
        assert before
        assert after[0][2] < age_s, "the first frame after the outage is old"
        assert before[-1][2] < 1.5, "a frame from before the outage was handed out after it"
        passed_s = after[0][3] - before[-1][3]
        assert after[0][1] - before[-1][1] == pytest.approx(passed_s, abs=clock_s)
        total_s = self.rows[-1][3] - before[-1][3]
        assert self.rows[-1][1] - before[-1][1] == pytest.approx(total_s, abs=clock_s)


class Station(Broadcast):
    """A TCP server that sends what its cameras give, one per connection."""

    def send(self, connection, parts):
        for part in parts:
            connection.sendall(part)


@pytest.mark.parametrize("start_s", [0.0, 100.0], ids=["clock from 0", "clock far ahead"])
def test_a_sender_that_was_away_is_back_fresh_and_counted_once(start_s):
    sent = {}
    first = Camera(sent).parts(40)
    second = Camera(sent, first=100, start_s=start_s).parts(60)
    with Station(first, second, away_s=1.5) as station:
        Watched(station.url, sent, until=120).check(100)


def test_a_backlog_after_an_outage_is_left_out():
    """The sender keeps a second of video for who comes back."""
    sent = {}

    def late():
        parts = Camera(sent, first=100).parts(60)
        yield b"".join(itertools.islice(parts, 30))
        yield from parts

    with Station(Camera(sent).parts(40), late(), away_s=0.5) as station:
        Watched(station.url, sent, until=120).check(100)


def test_an_encoder_that_stood_still_is_counted_without_a_new_connection():
    sent = {}
    parts = Camera(sent).parts(90, stall_at=45, stall_s=0.8)
    with Station(parts) as station:
        watched = Watched(station.url, sent, until=85)
    seen = [row[0] for row in watched.rows]
    watched.check(next(number for number in seen if number >= 45))


def udp(parts, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for part in parts:
            for k in range(0, len(part), 1316):
                out.sendto(part[k : k + 1316], ("127.0.0.1", port))


@pytest.mark.parametrize("away_s", [0.7, 2.0], ids=["within the time limit", "beyond it"])
def test_a_sender_of_datagrams_that_is_started_again(away_s):
    """The frame that FFmpeg held back when it fell silent does not come out late as new."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sent = {}

    def run():
        time.sleep(0.2)
        udp(Camera(sent).parts(40), port)
        time.sleep(away_s)
        udp(Camera(sent, first=100, start_s=7.0).parts(60), port)

    sender = threading.Thread(target=run)
    sender.start()
    try:
        Watched(f"udp://127.0.0.1:{port}", sent, until=120).check(100)
    finally:
        sender.join()


# ------------------------------------------------------------------------------- multipart JPEG


def damaged(number, kind):
    data = jpeg(number)
    if kind == "random half":
        return data[: len(data) // 2] + os.urandom(len(data) // 2)
    return {"random": os.urandom(len(data)), "empty": b"", "cut": data[: len(data) // 2]}[kind]


@pytest.mark.parametrize("kind", ["random half", "random", "empty", "cut"])
def test_a_damaged_image_costs_itself_and_not_the_connection(kind):
    asked = []

    def parts():
        asked.append(1)
        for k in paced(np.arange(60) / 50):
            yield damaged(k, kind) if k % 10 == 5 else jpeg(k)

    with web(motion_jpeg(parts)) as url, VideoSource(f"{url}/cam", reconnect_s=0) as source:
        assert source.live
        seen = {n for n in numbers(source) if n % 10 != 5}
    assert len(asked) == 1
    assert seen == {k for k in range(60) if k % 10 != 5}


def test_a_stream_of_images_without_times_runs_on_the_time_of_arrival():
    """10 frames a second, where FFmpeg would count 25."""

    def parts():
        for k in paced(np.arange(20) / 10):
            yield jpeg(k)

    with web(motion_jpeg(parts)) as url, VideoSource(f"{url}/cam", reconnect_s=0) as source:
        frames = list(source)
    times = [frame.time_s for frame in frames]
    assert times[-1] - times[4] == pytest.approx(1.5, abs=0.5)


def test_many_short_connections_do_not_put_the_clock_ahead():
    sent, numbering = {}, itertools.count()

    def parts():
        for _ in paced(np.arange(8) / 25):
            number = next(numbering)
            sent[number] = time.monotonic()
            yield jpeg(number)

    with web(motion_jpeg(parts)) as url, VideoSource(f"{url}/cam") as source:
        rows = [(f.time_s, sent[number_of(f.image)]) for f in itertools.islice(source, 24)]
    lags = np.array([at_s - time_s for time_s, at_s in rows])
    assert abs(lags[-8:] - np.median(lags[:8])).max() < 0.1


def test_a_camera_that_falls_silent_is_opened_again():
    done = threading.Event()
    asked = []

    def parts():
        asked.append(1)
        for k in paced(np.arange(20) / 25):
            yield jpeg(20 * len(asked) + k)
        done.wait(20)

    with (
        web(motion_jpeg(parts)) as url,
        VideoSource(f"{url}/cam", read_timeout_s=0.5) as source,
    ):
        start = time.monotonic()
        frames = list(itertools.islice(source, 30))
        assert time.monotonic() - start < 5
        done.set()
    seen = numbers(frames)
    assert seen == sorted(set(seen))
    assert len(asked) == 2


# -------------------------------------------------------------------------------------- HLS


class Playlist:
    """A live HLS stream: half-second segments that appear as time goes by.

    Args:
        folder: Where the segments are made.
        sent: The moment of each frame, by its number.
    """

    LENGTH = 15  # frames a segment

    def __init__(self, tmp_path, sent, pieces):
        self._segments = []
        for number, (first, from_s, new) in enumerate(pieces):
            name = f"{number}.ts"
            times = [round(1000 * from_s) + round(1000 * k / RATE) for k in range(self.LENGTH)]
            options = {"tune": "zerolatency", "g": "15"}
            clip = write_clip(
                tmp_path / name, frames=self.LENGTH, first=first, times=times, options=options
            )
            self._segments.append([name, Path(clip).read_bytes(), new, None])
        self._start_s = time.monotonic() - 1.5  # three segments are there at once
        self._sent, self._pieces = sent, pieces
        self.gap_after, self.gap_s = None, 0.0

    def due_s(self, number):
        """When a segment is complete."""
        gap = self.gap_s if self.gap_after is not None and number >= self.gap_after else 0.0
        return self._start_s + (number + 1) * self.LENGTH / RATE + gap

    def stamp(self):
        """Note the moment of every frame."""
        for number, (first, _, _) in enumerate(self._pieces):
            for k in range(self.LENGTH):
                self._sent[first + k] = self.due_s(number) - (self.LENGTH - k) / RATE

    @property
    def files(self):
        """What the web server has now."""
        ready = [n for n in range(len(self._segments)) if self.due_s(n) <= time.monotonic()]
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
        listed = ready[-6:]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{listed[0]}")
        for n in listed:
            name, _, new, _ = self._segments[n]
            lines += ["#EXT-X-DISCONTINUITY"] * new + [f"#EXTINF:{self.LENGTH / RATE:.3f},", name]
        found = {self._segments[n][0]: self._segments[n][1] for n in listed}
        return found | {"live.m3u8": ("\n".join(lines) + "\n").encode()}


@pytest.mark.parametrize("server_too", [False, True], ids=["encoder away", "server away"])
def test_a_playlist_that_stood_still_goes_on_without_old_frames(tmp_path, server_too):
    sent = {}
    pieces = [(15 * n, 10 + n / 2, False) for n in range(7)]
    pieces += [(120 + 15 * n, 1 + n / 2, n == 0) for n in range(8)]
    playlist = Playlist(tmp_path, sent, pieces)
    playlist.gap_after, playlist.gap_s = 7, 2.5
    playlist.stamp()

    def answer(handler):
        since_s = time.monotonic() - playlist.due_s(6)
        if server_too and 0.5 < since_s < 2.0:
            handler.send_error(503)
        else:
            folder(playlist.files)(handler)

    with web(answer) as url:
        watched = Watched(f"{url}/live.m3u8", sent, until=120 + 15 * 2)
    # A segment of half a second is at least that old when its first frame can be read.
    watched.check(120, age_s=1.0, clock_s=0.5)


def test_a_web_server_that_was_away_is_asked_at_the_right_moment(tmp_path):
    """The encoder went on: the first frame is from the end of a segment that was just listed."""
    sent = {}
    playlist = Playlist(tmp_path, sent, [(15 * n, 10 + n / 2, False) for n in range(15)])
    playlist.stamp()
    variants = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlive.m3u8\n"

    def answer(handler):
        # Back when the newest segment is nearly as old as it can be.
        if playlist.due_s(5) < time.monotonic() < playlist.due_s(8) + 0.35:
            handler.send_error(503)
        else:
            folder(playlist.files | {"all.m3u8": variants})(handler)

    with web(answer) as url:
        watched = Watched(f"{url}/all.m3u8", sent, until=15 * 12, reconnect_s=5.0)
    seen = [row[0] for row in watched.rows]
    back = next(after for before, after in itertools.pairwise(seen) if after - before > 15)
    watched.check(back, age_s=0.5, clock_s=0.5)
