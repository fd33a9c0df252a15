"""What reads each format: it must read a damaged file, or refuse it with an error of ours."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "stream"))

from clips import write_clip
from wire_samples import a_frame, a_result

from ape_model.io.checkpoint_reader import read_checkpoint
from ape_model.io.safetensors_io import read_metadata, read_safetensors, write_safetensors
from ape_model.text.cache import EmbeddingSpace
from ape_model.text.embedding_file import EmbeddingFile
from ape_nodes.ros2.bags.sink import BagSink
from ape_nodes.ros2.bags.source import BagSource
from ape_stream.cli import plan
from ape_stream.config import load
from ape_stream.datasets.read import read_instances
from ape_stream.errors import ApeStreamError
from ape_stream.formats.convert import convert
from ape_stream.sinks.coco import CocoSink
from ape_stream.sinks.jsonl import JsonlSink
from ape_stream.sinks.recover import recover
from ape_stream.sources.images import ImagesSource
from ape_stream.sources.media import expand
from ape_stream.sources.video import VideoSource
from ape_stream.wire import Envelope, decode_frame, decode_result, encode_frame, encode_result

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES = 8


@dataclass(frozen=True)
class Target:
    """One format."""

    suffix: str
    """Of the file."""
    make: Callable[[Path], object]
    """Writes a sound file."""
    read: Callable[[Path], object]
    """Reads one; an `ApeStreamError` refuses it."""


def _read_source(kind):
    def read(path):
        with kind(str(path)) as source:
            for frame in source:
                assert frame.image.ndim == 3

    return read


def _clip(**how):
    return lambda path: write_clip(path, frames=FRAMES, **how)


def _image(**how):
    def make(path):
        pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        Image.fromarray(pixels).save(path, exif=exif, **how)

    return make


TOML = """
prompts = ["red apple", { text = "sky", stuff = true, threshold = 0.3 }]
threshold = 0.4
policy = "auto"
sources = ["clip.mp4", { source = "rtsp://gate/cam", name = "gate", wait_s = 2.5 }]
outputs = ["out/tracks.json", { output = "gate.png", stream = "gate" }]
model = { plugin = "ape", model = "nano" }
tracker = { plugin = "iou" }
"""
PROMPTS = "# comment\nred apple\nжёлтое небо\na dog, asleep\n"


def _read_prompts(path):
    plan.from_options(plan.Options(["clip.mp4"], prompts_file=path))


def _sink(kind):
    def make(path):
        whole = path.with_suffix("")
        sink = kind(str(whole), overwrite=True)
        with sink:
            for k in range(FRAMES):
                sink.write(a_result(k))
            shutil.copy(whole.with_name(whole.name + ".part"), path.with_name("copy"))
        path.with_name("copy").replace(path)

    return make


def _recover(path):
    recover(path, overwrite=True)


def _recover_json(path):
    final, _ = recover(path, overwrite=True)
    assert json.loads(final.read_text())["info"]["partial"]


def _wire(path):
    message = encode_result(a_result(1, 2, (16, 24)), Envelope("cam", "r1", 1, 2), labels="zstd")
    path.write_bytes(message)


def _wire_frame(path):
    path.write_bytes(encode_frame(a_frame(4, (16, 24)), Envelope("cam", "r1", 1, 2), image="bgr8"))


def _read_wire(path):
    message = path.read_bytes()
    (decode_frame if message[5:6] == b"\x02" else decode_result)(message)


def _bag(path):
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    with BagSink(f"bag:{folder}", masks="none") as sink:
        for k in range(3):
            sink.write(a_result(k))
    next(folder.glob("*.mcap")).replace(path)


def _read_bag(path):
    with BagSource(f"bag://{path}", name="bag") as source:
        for frame in source:
            assert frame.image.ndim == 3


def _checkpoint(path):
    written = io.BytesIO()
    torch.save({"model": {"a.weight": torch.arange(6.0).view(2, 3)}, "step": 3}, written)
    path.write_bytes(written.getvalue())


def _read_checkpoint(path):
    read_checkpoint(path)


def _bank(path):
    space = EmbeddingSpace(tower="ab" * 32, dtype="float32", pooling="eot")
    EmbeddingFile(("cat", 'dog "face"'), torch.arange(1.0, 9.0).view(2, 4), space).save(path)


def _read_bank(path):
    EmbeddingFile.load(path)


def _weights(path):
    write_safetensors(path, {"a": torch.ones(2, 3)}, {"format": "x"})


def _read_weights(path):
    read_safetensors(path)
    read_metadata(path)


def _instances(path):
    """A data set of COCO, with its image."""
    write_image(path.with_name("a.png"))
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    region = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "segmentation": [square]}
    table = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "gizmo", "synonyms": ["widget"], "isthing": 1}],
        "annotations": [region, {**region, "iscrowd": 1}],
    }
    path.write_text(json.dumps(table))


VOC = """<annotation><filename>a.png</filename><size><width>60</width><height>40</height></size>
<object><name>gizmo</name><difficult>0</difficult>
<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object></annotation>
"""
YOLO = "train: images/train\nnames: [thing, gizmo]\npath: .\n"
ROWS = "1 0.325 0.3625 0.35 0.525\n0 .1 .1 .4 .1 .4 .4\n"


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), "grey").save(path)


def _read_instances(path):
    write_image(path.with_name("a.png"))
    read_instances(path)


def _read_voc(path):
    folder = path.with_name("voc")
    write_image(folder / "JPEGImages" / "a.png")
    (folder / "Annotations").mkdir(exist_ok=True)
    shutil.copy(path, folder / "Annotations" / "a.xml")
    read_instances(folder)


def _read_yolo(table=None, rows=None):
    def read(path):
        folder = path.with_name("yolo")
        write_image(folder / "images" / "train" / "a.png")
        (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "data.yaml").write_bytes(table or path.read_bytes())
        (folder / "labels" / "train" / "a.txt").write_bytes(rows or path.read_bytes())
        read_instances(folder)

    return read


def _records(path):
    with JsonlSink(str(path), overwrite=True) as sink:
        for k in range(FRAMES):
            sink.write(a_result(k))


def _convert(path):
    convert([path], ["coco", "cvat", "csv"], path.with_name("made"), overwrite=True)


def _bag_of_sqlite(path):
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    with BagSink(f"bag:{folder}", storage="sqlite3", image="compressed", masks="none") as sink:
        for k in range(3):
            sink.write(a_result(k))
    next(folder.glob("*.db3")).replace(path)


def _list_of_streams(path):
    path.write_text("# cameras\nsynthetic://1?frames=1\nsynthetic://2?frames=1 # second\n")


def _read_list(path):
    expand(str(path))


TARGETS = {
    "mp4": Target(".mp4", _clip(options={"preset": "ultrafast"}), _read_source(VideoSource)),
    "ts": Target(
        ".ts",
        _clip(container="mpegts", options={"preset": "ultrafast"}),
        _read_source(VideoSource),
    ),
    "mkv": Target(".mkv", _clip(options={"preset": "ultrafast"}), _read_source(VideoSource)),
    "avi": Target(".avi", _clip(codec="mpeg4"), _read_source(VideoSource)),
    "h264": Target(".h264", _clip(container="h264"), _read_source(VideoSource)),
    "png": Target(".png", _image(), _read_source(ImagesSource)),
    "jpg": Target(".jpg", _image(), _read_source(ImagesSource)),
    "tif": Target(".tif", _image(compression="tiff_lzw"), _read_source(ImagesSource)),
    "webp": Target(".webp", _image(), _read_source(ImagesSource)),
    "toml": Target(".toml", lambda path: path.write_text(TOML), load),
    "prompts": Target(".txt", lambda path: path.write_text(PROMPTS), _read_prompts),
    "json.part": Target(".json.part", _sink(CocoSink), _recover_json),
    "jsonl.part": Target(".jsonl.part", _sink(JsonlSink), _recover),
    "mp4.part": Target(".mp4.part", _clip(container="mp4"), _recover),
    "mkv.part": Target(".mkv.part", _clip(container="matroska"), _recover),
    "wire": Target(".msg", _wire, _read_wire),
    "wire frame": Target(".msg", _wire_frame, _read_wire),
    "mcap": Target(".mcap", _bag, _read_bag),
    "pth": Target(".pth", _checkpoint, _read_checkpoint),
    "bank": Target(".safetensors", _bank, _read_bank),
    "safetensors": Target(".safetensors", _weights, _read_weights),
    "mov": Target(".mov", _clip(container="mov"), _read_source(VideoSource)),
    "webm": Target(".webm", _clip(container="webm", codec="libvpx"), _read_source(VideoSource)),
    "flv": Target(".flv", _clip(container="flv"), _read_source(VideoSource)),
    "mpg": Target(".mpg", _clip(container="mpeg", codec="mpeg2video"), _read_source(VideoSource)),
    "mjpeg": Target(
        ".mjpeg",
        _clip(container="mjpeg", codec="mjpeg", pixels="yuvj420p"),
        _read_source(VideoSource),
    ),
    "gif": Target(
        ".gif", _clip(container="gif", codec="gif", pixels="rgb8"), _read_source(VideoSource)
    ),
    "bmp": Target(".bmp", _image(), _read_source(ImagesSource)),
    "coco": Target(".json", _instances, _read_instances),
    "voc": Target(".xml", lambda path: path.write_text(VOC), _read_voc),
    "data.yaml": Target(
        ".yaml", lambda path: path.write_text(YOLO), _read_yolo(rows=ROWS.encode())
    ),
    "yolo": Target(".txt", lambda path: path.write_text(ROWS), _read_yolo(table=YOLO.encode())),
    "jsonl": Target(".jsonl", _records, _convert),
    "streams": Target(".streams", _list_of_streams, _read_list),
    "db3": Target(".db3", _bag_of_sqlite, _read_bag),
}
NEEDS = {"mcap": "rosbags", "db3": "rosbags", "wire": "msgpack", "wire frame": "msgpack"}


def available() -> list[str]:
    """The formats whose libraries are installed."""
    return [name for name in TARGETS if importlib.util.find_spec(NEEDS.get(name, "numpy"))]


def refused(target: Target, path: Path) -> str | None:
    """Why a file is refused, None where it is read; every other error is let through."""
    try:
        target.read(path)
    except ApeStreamError as error:
        message = str(error)
        assert message, "no reason"
        assert "\n" not in message, f"not one line: {message!r}"
        return message
    return None
