"""Two small annotated videos with everything that is hard to write, and the masks behind them."""

import json

import numpy as np
import PIL.Image

from ape_stream import masks
from ape_stream.formats.records import (
    FrameRecord,
    InstanceRecord,
    JobRecord,
    RleRecord,
    VideoRecord,
    write_records,
)
from ape_stream.types import Prompt

H, W = 48, 64
SIZE = (H, W)
PROMPTS = (
    Prompt("ring"),
    Prompt('dog\'s face, <asleep> & "so"'),
    Prompt("苹果"),
    Prompt("sky", stuff=True),
)
JOB = JobRecord(PROMPTS, "nano", 0.3, "0.1.0")


def disc(x, y, radius, hole=0):
    rows, columns = np.ogrid[:H, :W]
    distance = (rows - y) ** 2 + (columns - x) ** 2
    return (distance <= radius**2) & ~((distance <= hole**2) & (hole > 0))


def rectangle(x, y, width, height):
    mask = np.zeros(SIZE, bool)
    mask[y : y + height, x : x + width] = True
    return mask


SHAPES = {
    "ring": disc(20, 20, 12, 5),
    "two": disc(45, 10, 6) | disc(52, 36, 5),
    "pixel": rectangle(3, 3, 1, 1),
    "line": rectangle(5, 44, 3, 1),
    "full": np.ones(SIZE, bool),
}
OBJECTS = {
    "ring": (0, 1, 0.9),
    "two": (1, 2, 0.8),
    "pixel": (2, 3, 0.7),
    "line": (2, 4, 0.6),
    "full": (3, 5, 0.55),
}
"""Prompt, track and score of each."""
SEEN = (
    ("ring", "two", "pixel", "line"),
    (),
    ("two", "pixel", "line"),
    ("full", "ring", "two", "pixel", "line"),
)
"""What each frame shows: one shows nothing, and the ring is away for two."""
FLAT = SEEN[:3]
"""Frames without overlap."""

VIDEOS = (
    VideoRecord("clip a/Prüfung 猫", W, H, "in/Prüfung 猫.mp4", (1, 25), len(SEEN), (25, 1)),
    VideoRecord("b", W, H, "in/b.mp4", (1, 25), len(SEEN), (25, 1), split="val"),
)


def instance(name, *, track=True):
    prompt, track_id, score = OBJECTS[name]
    mask = masks.crop(SHAPES[name])
    counts = masks.encode_rle(mask, SIZE)["counts"].decode()
    box = tuple(map(float, masks.box(mask)))
    rle = RleRecord(SIZE, counts)
    return InstanceRecord(
        PROMPTS[prompt].text, prompt, score, box, track_id if track else None, rle
    )


def frames(video, seen=SEEN, *, track=True):
    for k, names in enumerate(seen):
        found = tuple(instance(name, track=track) for name in names)
        yield FrameRecord(video.name, k, k / 25, SIZE, found, pts=k)


def write_to(writer, videos=VIDEOS, seen=SEEN, *, track=True):
    for video in videos:
        writer.begin_video(video)
        for frame in frames(video, seen, track=track):
            writer.frame(frame)
        writer.end_video()


def write_jsonl(path, videos=VIDEOS):
    with path.open("w", encoding="utf-8") as stream:
        write_records(stream, [JOB])
        for video in videos:
            write_records(stream, [video, *frames(video)])
    return path


def tree(folder):
    """Every file of a folder by its relative path, with its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def blank(path):
    """An image of the size of all frames, for readers that open it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (W, H)).save(path)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))
