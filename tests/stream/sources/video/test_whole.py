"""What is whole is never called cut short, and what is cut short always is."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from clips import RATE, SIZE, image_of, number_of, numbers, read_video, write_clip

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.sources.video import VideoSource
from ape_stream.sources.video.opening import without_secrets

# ------------------------------------------------------------------------------- which stream


def two_streams(path):
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("libx264", rate=RATE) for _ in range(2)]
        for stream, size in zip(streams, (SIZE, (48, 64)), strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for k in range(10):
            for stream, first in zip(streams, (0, 100), strict=True):
                image = image_of(first + k, (stream.height, stream.width))
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts = k
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode(None))
    return str(path)


def test_the_first_video_stream_is_the_default_and_others_can_be_chosen(tmp_path):
    path = two_streams(tmp_path / "two.mp4")
    assert numbers(read_video(path)) == list(range(10))
    assert numbers(read_video(path, stream=1)) == list(range(100, 110))
    assert read_video(path, stream=1)[0].size == (48, 64)
    with pytest.raises(SourceError, match="no video stream 2: choose 0 to 1"):
        read_video(path, stream=2)


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
            read_video(tmp_path / name)
        reason = {"missing.mp4": "No such file", "empty.mp4": "is empty"}.get(
            name, "is not a video"
        )
        assert name in one_line(error)
        assert reason in str(error.value)
        assert not isinstance(error.value, TruncatedError)


def test_a_folder_and_a_pipe_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4"):
        with pytest.raises(SourceError, match="is not a file"):
            read_video(path)


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
        read_video(write_sound(tmp_path / "sound.m4a"))


def test_a_video_without_a_frame_is_refused(tmp_path):
    path = Path(write_clip(tmp_path / "a.mp4", frames=5))
    before, mark, rest = path.read_bytes().partition(b"mdat")
    payload, index, tables = rest.partition(b"moov")
    path.write_bytes(before + mark + bytes(len(payload) - 4) + payload[-4:] + index + tables)
    with pytest.raises(SourceError, match="no frame that can be decoded"):
        read_video(path)


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
    """Long last frames, sound beyond the images and low rates are no damage."""
    slow = write_clip(tmp_path / "slow.mkv", frames=4, times=[0, 1000, 2000, 7000])
    assert len(read_video(slow)) == 4
    assert len(read_video(write_clip(tmp_path / "one.mp4", frames=1))) == 1


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


@pytest.mark.parametrize(
    "where",
    ["user:geheim@H/cam", "u:g@geheim@H/cam", "u:g/geheim@H/cam", "H/cam?user=a&pwd=geheim"],
)
def test_secrets_stay_out_of_messages(where):
    with pytest.raises(SourceError) as error:
        read_video("rtsp://" + where.replace("H", "127.0.0.1:9"), open_timeout_s=1.0)
    assert "geheim" not in one_line(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://10.0.0.5:80/@cam/a.m3u8", "http://10.0.0.5:80/@cam/a.m3u8"),
        ("clips/what?.mp4", "clips/what?.mp4"),
        ("no 'rtsp://a:b@c/d?e=f' there", "no 'rtsp://c/d?...' there"),
    ],
)
def test_what_is_no_secret_stays_in_messages(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "option", ["stream", "open_timeout_s", "read_timeout_s", "reconnect_s", "wait_s"]
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match="time limits"):
        VideoSource("a.mp4", **{option: -1})


# --------------------------------------------------------------------------- what only looks cut


def trimmed(tmp_path, source, *, skip, name="trimmed.mp4"):
    """Copy the packets of a video from `skip` on, as `ffmpeg -ss .. -c copy` does.

    The copy begins with the key frame before; an edit list hides what comes before the cut.
    """
    with av.open(source) as given, av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.pts -= skip
                packet.dts -= skip
                packet.stream = stream
                output.mux(packet)
    return tmp_path / name


@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_an_mp4_that_was_trimmed_without_encoding_is_whole(tmp_path, b_frames):
    clip = write_clip(tmp_path / "a.mp4", frames=50, options={"bf": b_frames, "g": "60"})
    with av.open(clip) as container:
        tick = int(1 / RATE / container.streams.video[0].time_base)
    path = trimmed(tmp_path, clip, skip=20 * tick)
    with VideoSource(str(path)) as source:
        assert source.frame_count == 30
        frames = list(source)
    assert numbers(frames) == list(range(20, 50))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(30) / RATE, atol=1e-4)


def test_the_two_halves_of_the_message_fit_together(tmp_path):
    clip = write_clip(tmp_path / "a.mkv", frames=90, options={"bf": "0"})
    data = Path(clip).read_bytes()
    Path(clip).write_bytes(data[: len(data) // 2])
    with pytest.raises(TruncatedError) as error:
        read_video(clip)
    assert "cut short: " in one_line(error)
    count, read_s, length_s = (
        float(word) for word in str(error.value).split("short: ")[1].split() if word[0].isdigit()
    )
    assert length_s == 3
    assert read_s == pytest.approx(count / RATE, abs=0.01)
    assert read_s < length_s


def test_a_stream_that_begins_in_the_middle_is_no_damage(tmp_path):
    """A transport stream whose second part has sound, which the first had not."""
    silent = write_clip(tmp_path / "silent.ts", frames=30)
    with av.open(str(tmp_path / "sound.ts"), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        sound = output.add_stream("aac", rate=16_000, layout="mono")
        for k in range(30):
            frame = av.VideoFrame.from_ndarray(image_of(30 + k), format="bgr24")
            frame.pts = k
            output.mux(video.encode(frame))
        for k in range(16):
            note = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            note.sample_rate, note.pts = 16_000, 1024 * k
            output.mux(sound.encode(note))
        for stream in (video, sound):
            output.mux(stream.encode(None))
    path = tmp_path / "both.ts"
    path.write_bytes(Path(silent).read_bytes() + (tmp_path / "sound.ts").read_bytes())
    assert numbers(read_video(path)) == list(range(60))


def test_more_frames_than_promised_end_the_promise(tmp_path):
    with VideoSource(write_clip(tmp_path / "a.mp4")) as source:
        source._frame_count = 5
        frames = list(source)
        assert len(frames) == 20
        assert source.frame_count is None
