"""Every frame comes once, with its own time, also where its container leaves it out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import RATE, image_of, numbers, read_video, write_clip

from ape_stream.protocols import Source
from ape_stream.sources.video import VideoSource

CLIPS = Path(__file__).parents[4].parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")


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
    frames = read_video(path, name="clip")
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
    frames = read_video(write_clip(tmp_path / name, frames=10, times=times))
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


# ----------------------------------------------------------------- times that are missing or wrong


def steps(frames):
    return np.diff([frame.time_s for frame in frames])


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_b_frames_in_a_container_without_presentation_times(tmp_path, codec):
    options = {"bf": "3" if codec == "libx264" else "2"}
    frames = read_video(write_clip(tmp_path / "b.avi", frames=50, codec=codec, options=options))
    assert numbers(frames) == list(range(50))
    np.testing.assert_allclose(steps(frames), 1 / RATE, atol=1e-9)


@pytest.mark.parametrize("suffix", ["h264", "hevc"])
@pytest.mark.parametrize("rate", [25, 30])
def test_a_raw_stream_without_any_time_is_whole_and_keeps_its_rate(tmp_path, suffix, rate):
    with av.open(str(tmp_path / f"raw.{suffix}"), "w") as output:
        codec, quiet = ("libx264", {}) if suffix == "h264" else ("libx265", {})
        if suffix == "hevc":
            quiet = {"x265-params": "log-level=none"}
        stream = output.add_stream(codec, rate=rate, options=quiet)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(image_of(k), format="bgr24")
            frame.pts, frame.time_base = k, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frames = read_video(tmp_path / f"raw.{suffix}")
    assert numbers(frames) == list(range(25))
    np.testing.assert_allclose(steps(frames), 1 / rate, atol=1e-9)


def joined(tmp_path, *clips):
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(Path(clip).read_bytes() for clip in clips))
    return path


@pytest.mark.parametrize("order", ["again", "back", "ahead"])
def test_recordings_one_after_the_other_go_on_by_one_frame(tmp_path, order):
    """As a recorder that appends, or a saved HLS stream with a discontinuity."""
    early = write_clip(tmp_path / "early.ts", frames=30)
    late = write_clip(tmp_path / "late.ts", frames=30, times=[600_000 + 33 * k for k in range(30)])
    pair = {"again": (early, early), "back": (late, early), "ahead": (early, late)}[order]
    with VideoSource(str(joined(tmp_path, *pair))) as source:
        assert source.frame_count is None  # the header covers one recording
        frames = list(source)
    assert numbers(frames) == list(range(30)) * 2
    assert (steps(frames) > 0).all()
    np.testing.assert_allclose(steps(frames), 1 / RATE, atol=1e-3)


def test_a_long_still_is_no_new_recording(tmp_path):
    times = [0, 20_000, 50_000, 50_033]
    frames = read_video(write_clip(tmp_path / "still.mkv", frames=4, times=times))
    assert [round(1000 * frame.time_s) for frame in frames] == times


def test_times_that_are_out_of_order_still_rise(tmp_path):
    """A muxer that writes a time twice, or a few milliseconds back."""
    path = write_clip(tmp_path / "a.mkv", frames=10, options={"bf": "0"})
    with av.open(path) as source, av.open(str(tmp_path / "b.mkv"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for k, packet in enumerate(source.demux(video=0)):
            if packet.pts is not None:
                packet.dts = packet.pts - 1000
                packet.pts -= 40 if k == 5 else 0
                packet.stream = stream
                output.mux(packet)
    frames = read_video(tmp_path / "b.mkv")
    assert numbers(frames) == list(range(10))
    assert (steps(frames) > 0).all()
    assert frames[-1].time_s == pytest.approx(9 / RATE, abs=1e-3)


def test_a_container_that_begins_before_zero_is_moved_to_zero(tmp_path):
    times = [-500 + 40 * k for k in range(10)]
    options = {"avoid_negative_ts": "disabled"}
    path = write_clip(tmp_path / "n.ts", frames=10, times=times, mux_options=options)
    frames = read_video(path)
    assert frames[0].time_s == 0
    np.testing.assert_allclose(steps(frames), 0.04, atol=1e-9)


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
    frames = read_video(CLIPS / name, stream=stream)
    assert [frame.time_s for frame in frames] == pytest.approx(wanted, abs=1e-9)
    assert {frame.size for frame in frames} == {size}
    assert count in {None, len(frames)}
    assert last_s is None or frames[-1].time_s == pytest.approx(last_s, abs=1e-3)
