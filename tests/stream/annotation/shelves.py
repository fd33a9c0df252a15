"""Shelves of small clips, jobs over them, and what such a job leaves."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from clips import write_clip

from ape_stream.cli.main import main

OPTIONS = ("--config", "fake.toml", "--no-overlay")  # drawing is what takes time
ROOT = Path(__file__).resolve().parents[3]


def write(path, **more):
    """Write a clip, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, **more)


def annotate(*words, out="out"):
    """Run a job with the fake model in this process; returns the exit code."""
    words = [str(word) for word in words]
    return main(["annotate", *words, *OPTIONS, "--out-dir", str(out)])


def start(folder, *words, out="out"):
    """The same as a process of its own."""
    path = os.pathsep.join([str(folder), *(str(ROOT / p) for p in (".", "model", "nodes"))])
    words = [str(word) for word in words]
    return subprocess.Popen(
        [sys.executable, "-m", "ape_stream", "annotate", *words, *OPTIONS,
         "--out-dir", str(out)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def final_files(out):
    """Digests of all final files, by relative path."""
    out = Path(out)
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".shards" not in path.parts
    }


def summary_of(out="out"):
    return json.loads((Path(out) / "summary.json").read_text())


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


CODECS = [
    ("libx264", "yuv420p", "mp4"), ("huffyuv", "yuv422p", "avi"), ("mpeg4", "yuv420p", "avi"),
    ("libvpx-vp9", "yuv420p", "webm"), ("mjpeg", "yuvj420p", "mov"),
    ("mpeg2video", "yuv420p", "mkv"),
    ("libx264", "yuv444p", "mkv"), ("ffv1", "yuv420p", "mkv"),
]  # fmt: skip


def write_shelf(folder, count=35, frames=4):
    """Clips of several codecs and sizes, in nested folders; and five broken ones."""
    for k in range(count):
        codec, pixels, suffix = CODECS[k % len(CODECS)]
        path = folder / f"site {k % 3}" / ("Prüfung 猫" if k % 2 else "day") / f"clip {k}.{suffix}"
        size = [(96, 128), (64, 48), (120, 160)][k % 3]
        write(path, frames=frames, codec=codec, pixels=pixels, size=size)
    whole = (folder / "site 0" / "day" / "clip 0.mp4").read_bytes()
    broken = {
        "noise.mp4": bytes(range(256)) * 40,
        "empty.mkv": b"",
        "headless.mp4": whole[: len(whole) // 2],
        "text.mov": b"this is no video\n" * 100,
        "zeros.avi": bytes(5000),
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
