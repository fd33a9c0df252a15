"""What cannot run is refused before a model loads, as an error of usage."""

from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from PIL import Image

import ape_stream
from ape_stream.errors import ConfigError
from ape_stream.testing import OraclePerceiver


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    Path("empty").mkdir()
    for name in ("zero.mp4", "zero.png", "file"):
        Path(name).touch()
    for name in ("junk.mp4", "junk.png"):
        Path(name).write_bytes(np.random.default_rng(0).bytes(3000))
    Path("junk").mkdir()
    Path("junk/a.png").write_bytes(b"no image")
    Image.new("RGB", (32, 24)).save("image.png")


@pytest.mark.parametrize(
    ("source", "output", "says"),
    [
        ("empty", "a.json", "empty holds no images"),
        ("977", "a.json", "there is no camera 977"),
        ("zero.mp4", "a.json", "zero.mp4 is empty"),
        ("junk.mp4", "a.json", "junk.mp4 is not a video"),
        ("zero.png", "a.json", "zero.png is not an image"),
        ("junk.png", "a.json", "junk.png is not an image"),
        ("junk", "a.json", "junk/a.png is not an image"),
        ("image.png", "window", "there is no display"),
        ("image.png", "/proc/nope/a.json", "/proc takes no files"),
        ("image.png", "/proc/nope/labels/", "/proc takes no files"),
        ("image.png", "/proc/nope/{stream}.png", "/proc takes no files"),
        ("image.png", "file/a.json", "file takes no files"),
        ("image.png", "cvat/", "would hold label maps, not cvat: .* --format cvat"),
    ],
)
def test_it_is_refused_before_the_model_loads(source, output, says):
    with pytest.raises(ConfigError, match=says):
        ape_stream.open(source, "cup", model="no/model", outputs=output)
    assert sorted(path.name for path in Path().iterdir()) == [
        "empty", "file", "image.png", "junk", "junk.mp4", "junk.png", "zero.mp4", "zero.png"
    ]  # fmt: skip


def test_one_image_that_can_be_read_is_enough():
    Image.new("RGB", (32, 24)).save("junk/b.png")
    ape_stream.open("junk", "cup", model=OraclePerceiver())


def test_a_checked_video_is_read_from_its_start():
    write_clip("clip.mp4", frames=5)
    run = ape_stream.open("clip.mp4", "cup", model=OraclePerceiver())
    assert [result.frame.index for result in run] == list(range(5))
