"""Images as a stream: order, arrangement, orientation, depth; and local cameras."""

from __future__ import annotations

import gc
import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.protocols import Source
from ape_stream.sources import camera as cameras
from ape_stream.sources.camera import CameraSource
from ape_stream.sources.images import ImagesSource


def save(path, value=0, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def read(spec, **options):
    with ImagesSource(str(spec), **options) as source:
        frames = list(source)
        assert source.frame_count == len(frames)
    return frames


def values(frames):
    return [int(frame.image[0, 0, 0]) for frame in frames]


# ----------------------------------------------------------------------------------- arrangements


def test_one_image(tmp_path):
    path = save(tmp_path / "a.png", 7)
    (frame,) = read(path, name="still")
    assert (frame.index, frame.time_s, frame.stream, frame.origin) == (0, 0.0, "still", str(path))
    assert frame.size == (4, 6)
    assert isinstance(ImagesSource(str(path)), Source)


def animation(path, shades=(10, 90, 200), durations=(40, 100, 60)):
    first, *others = (Image.new("RGB", (6, 4), (shade,) * 3) for shade in shades)
    first.save(path, save_all=True, append_images=others, duration=list(durations), lossless=True)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animation_has_all_its_images_at_their_times(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}")
    frames = read(path)
    assert values(frames) == [10, 90, 200]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.14])
    assert [frame.origin for frame in frames] == [None] * 3
    with ImagesSource(str(path)) as source:
        source.keep(lambda index, _: index == 1)
        assert [(frame.index, *values([frame])) for frame in source] == [(1, 90)]


def test_an_animation_among_images_is_one_of_them(tmp_path, caplog):
    path = animation(tmp_path / "a.webp")
    save(tmp_path / "b.png", 7)
    assert values(read(tmp_path)) == [10, 7]
    assert f"{path} holds 3 images: the first is taken" in caplog.text


def test_an_animation_that_is_cut_short_is_read_as_far_as_it_goes(tmp_path):
    whole = animation(tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: whole.rindex(b"fcTL") - 4])
    seen = []
    with (
        ImagesSource(str(tmp_path / "b.png")) as source,
        pytest.raises(TruncatedError, match="2 of 3 images"),
    ):
        seen.extend(source)
    assert values(seen) == [10, 90]


def test_a_folder_comes_in_natural_order_without_other_files(tmp_path):
    for number in (10, 9, 1, 100):
        save(tmp_path / f"f{number}.png", number)
    save(tmp_path / "g2.BMP", 200)
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / "deeper" / "f0.png")
    frames = read(tmp_path, fps=4)
    assert values(frames) == [1, 9, 10, 100, 200]
    assert [frame.time_s for frame in frames] == [0, 0.25, 0.5, 0.75, 1.0]
    assert [frame.index for frame in frames] == list(range(5))


def test_patterns_and_numbered_sequences(tmp_path):
    for number in (2, 10, 1):
        save(tmp_path / "shots" / f"a{number}.png", number)
        save(tmp_path / "shots" / f"s_{number:04d}.png", 100 + number)
    assert values(read(tmp_path / "shots" / "a*.png")) == [1, 2, 10]
    assert values(read(tmp_path / "shots" / "s_%04d.png")) == [101, 102, 110]
    assert values(read(tmp_path / "*" / "a*.png")) == [1, 2, 10]


def test_a_list_keeps_its_own_order_and_counts_from_itself(tmp_path):
    save(tmp_path / "in" / "b.png", 2)
    save(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "list.txt").write_text(f"b.png\n\n{tmp_path}/in/a.png\n")
    assert values(read(tmp_path / "in" / "list.txt")) == [2, 1]


# ----------------------------------------------------------------------------------------- pixels


def test_colours_are_blue_green_red(tmp_path):
    Image.new("RGB", (3, 2), (200, 60, 30)).save(tmp_path / "c.png")
    assert read(tmp_path / "c.png")[0].image[1, 2].tolist() == [30, 60, 200]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_and_flips(tmp_path, orientation):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255  # upper left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "t.png", exif=exif)
    # Exif 2.32, tag 274: where row 0 and column 0 of the stored image are seen.
    corners = [(0, 0), (0, -1), (-1, -1), (-1, 0), (0, 0), (0, -1), (-1, -1), (-1, 0)]
    row, column = corners[orientation - 1]
    image = read(tmp_path / "t.png")[0].image
    assert image.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    assert image[row, column].tolist() == [255] * 3
    assert np.count_nonzero(image[..., 0]) == 64


@pytest.mark.parametrize(
    ("mode", "pixel", "wanted"),
    [
        ("L", 90, [90, 90, 90]),
        ("1", 1, [255, 255, 255]),
        ("LA", (90, 10), [90, 90, 90]),
        ("RGBA", (10, 20, 30, 0), [30, 20, 10]),
        ("I;16", 0x5A80, [0x5A, 0x5A, 0x5A]),
    ],
)
def test_every_depth_becomes_three_bytes(tmp_path, mode, pixel, wanted):
    Image.new(mode, (5, 3), pixel).save(tmp_path / "d.png")
    image = read(tmp_path / "d.png")[0].image
    assert image.shape == (3, 5, 3)
    assert image[0, 0].tolist() == wanted


def test_sixteen_bit_colour_and_palettes(tmp_path):
    deep = np.full((3, 5, 3), (0x1E80, 0x3C80, 0xC880), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert read(tmp_path / "deep.png")[0].image[0, 0].tolist() == [0x1E, 0x3C, 0xC8]
    few = Image.new("RGB", (5, 3), (200, 60, 30)).quantize(4)
    few.save(tmp_path / "few.png", transparency=bytes([0, 128]))
    assert read(tmp_path / "few.png")[0].image[0, 0].tolist() == [30, 60, 200]


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 7)])
def test_extreme_sizes(tmp_path, size):
    assert read(save(tmp_path / "x.png", size=size))[0].size == size


# -------------------------------------------------------------------------------------- bad input


def test_an_unreadable_image_is_named_and_the_others_are_read(tmp_path):
    save(tmp_path / "1.png", 5)
    (tmp_path / "2.png").write_bytes(b"no image at all")
    save(tmp_path / "3.png", 7)
    frames = []
    with (
        ImagesSource(str(tmp_path)) as source,
        pytest.raises(TruncatedError, match=r"1 of 3 images .*2\.png") as error,
    ):
        frames.extend(source)
    assert values(frames) == [5, 7]
    assert [frame.index for frame in frames] == [0, 2]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_that_is_cut_short_is_not_filled_up(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"cannot read the image .*cut"):
        read(path)
    gc.collect()  # a file that is left open is a warning, and warnings are errors


def test_many_unreadable_images_are_each_named_once(tmp_path, caplog):
    save(tmp_path / "0.png")
    for number in range(1, 9):
        (tmp_path / f"{number}.png").touch()
    with ImagesSource(str(tmp_path)) as source, pytest.raises(TruncatedError) as error:
        list(source)
    assert str(error.value).startswith("8 of 9 images")
    reports = [str(error.value), *(record.getMessage() for record in caplog.records)]
    for number in range(1, 9):
        assert sum(line.count(f"{number}.png") for line in reports) == 1


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    save(tmp_path / "a.png", 3)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\n")
    assert values(read(tmp_path / "list.txt")) == [3]


def test_missing_and_empty_places(tmp_path):
    (tmp_path / "list.txt").write_text("missing.png\n")
    with pytest.raises(SourceError, match=r"missing\.png: No such file"):
        read(tmp_path / "list.txt")
    for spec in (tmp_path / "none" / "*.png", tmp_path / "f_%03d.png"):
        with pytest.raises(SourceError, match=r"holds no images .*and no videos"):
            read(spec)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot read the list"):
        read(tmp_path / "list.txt")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_a_rate(fps):
    with pytest.raises(ValueError, match="fps"):
        ImagesSource("a.png", fps=fps)


# ---------------------------------------------------------------------------------------- cameras


class FakeCapture:
    """A camera of `good` frames that then falls silent, in OpenCV's shape."""

    def __init__(self, *, good=5, opens=True):
        self.left, self.opens = good, opens
        self.wishes, self.released = {}, 0

    def isOpened(self):  # noqa: N802 (OpenCV's name)
        return self.opens

    def set(self, wish, value):
        self.wishes[wish] = value

    def read(self):
        time.sleep(0.002)
        self.left -= 1
        return (True, np.zeros((4, 6, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        self.released += 1


@pytest.fixture(name="plug")
def _plug(monkeypatch, tmp_path):
    """Plug a camera in at a path."""

    def plug(capture):
        monkeypatch.setattr(cv2, "VideoCapture", lambda _device, _api: capture)
        (tmp_path / "video").touch()
        return str(tmp_path / "video")

    return plug


def test_a_camera_delivers_frames_with_rising_times_until_it_is_gone(plug, monkeypatch):
    monkeypatch.setattr(cameras, "SILENT_S", 0.1)
    capture = FakeCapture()
    frames = []
    with CameraSource(plug(capture), name="door", width=640, fps=15.0) as source:
        assert isinstance(source, Source)
        assert source.live
        assert not hasattr(source, "frame_count")
        with pytest.raises(SourceError, match="no more frames"):
            frames.extend(source)
    assert [frame.index for frame in frames] == list(range(5))
    assert (np.diff([frame.time_s for frame in frames]) > 0).all()
    assert capture.wishes == {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FPS: 15.0}
    assert capture.released == 1


def test_leaving_from_another_thread_ends_the_reading(plug):
    capture = FakeCapture(good=1_000_000)
    source = CameraSource(plug(capture))
    source.__enter__()
    reader = threading.Thread(target=lambda: list(itertools.islice(source, 1_000_000)))
    reader.start()
    time.sleep(0.05)
    source.__exit__(None, None, None)
    reader.join(5)
    assert not reader.is_alive()
    assert capture.released == 1


def test_a_camera_that_is_not_there_or_busy_is_reported(plug):
    for spec in ("63", "camera://63", "/dev/video63"):
        with pytest.raises(SourceError, match="video63 does not exist"), CameraSource(spec):
            pass
    with (
        pytest.raises(SourceError, match="another program may use it"),
        CameraSource(plug(FakeCapture(opens=False))),
    ):
        pass
