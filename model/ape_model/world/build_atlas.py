"""Build the sprite atlas that ships with the package; for developers.

Needs the Debian packages `fonts-noto-color-emoji` (the drawings, OFL-1.1) and
`unicode-cldr-core` (the names), and the class list `words.txt` in this folder::

    python -m ape_model.world.build_atlas

The drawn world reads nothing but the result, `assets/world.png` and `assets/world.json`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["build", "main", "read_words"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parent / "assets"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
FONT_SIZE = 109
"""The only size for which the font has bitmaps."""
CELL = 88
"""Side of an atlas cell, pixels: the largest size at which `World` draws by default."""
COLUMNS = 16
LOOK_ALIKE_RMS = 0.10
"""Root mean square RGBA distance at 24 px (0..1) below which two classes look the same."""

Words = dict[str, list[tuple[str, str]]]


def read_words(path: Path) -> Words:
    """Read the class list as section -> [(head, comma-separated synonyms)], in order."""
    sections: Words = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = []
        else:
            head, _, tail = line.partition(":")
            sections[section].append((head.strip(), tail.strip()))
    return sections


def _cldr_names(path: Path) -> dict[str, str]:
    """Short name of every emoji in CLDR."""
    found = ET.parse(path).iter("annotation")  # noqa: S314 (a file of the system's own package)
    return {a.get("cp", ""): a.text or "" for a in found if a.get("type") == "tts"}


def _sprite(font: ImageFont.FreeTypeFont, code: str) -> NDArray[np.uint8]:
    """One emoji as (CELL, CELL, 4) uint8 RGBA, straight alpha, centred, longer side = CELL."""
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((20, 20), chr(int(code, 16)), font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise SystemExit(f"the font draws nothing for U+{code}")
    tight = canvas.crop(box)
    scale = (CELL - 2) / max(tight.size)
    size = max(1, round(tight.width * scale)), max(1, round(tight.height * scale))
    # Premultiply before resampling: colours of clear pixels must not bleed into edges.
    small = tight.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(small, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return np.asarray(cell)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _things(words: Words, names: dict[str, str]) -> list[tuple[list[str], str, list[str]]]:
    """Every thing as (code points, main name, synonyms)."""
    things = []
    for head, tail in words["things"]:
        codes, _, given = head.partition("=")
        listed = codes.split()
        name = given.strip() or names[chr(int(listed[0], 16))]
        things.append((listed, name, _split(tail)))
    return things


def _atlas(sprites: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    rows = -(-len(sprites) // COLUMNS)
    atlas = np.zeros((rows * CELL, COLUMNS * CELL, 4), np.uint8)
    for k, sprite in enumerate(sprites):
        y, x = k // COLUMNS * CELL, k % COLUMNS * CELL
        atlas[y : y + CELL, x : x + CELL] = sprite
    return atlas


def _warn_of_look_alikes(sprites: list[NDArray[np.uint8]], owners: list[str]) -> None:
    small = np.stack([cv2.resize(s, (24, 24), interpolation=cv2.INTER_AREA) for s in sprites])
    flat = small.reshape(len(sprites), -1).astype(np.float32) / 255
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))  # (N, N)
    # Each pair once; sprites of one class may look alike.
    for i, j in np.argwhere(np.triu(distance < LOOK_ALIKE_RMS, 1)):
        if owners[i] != owners[j]:
            print(f"look-alikes: {owners[i]} / {owners[j]} {distance[i, j]:.3f}")  # noqa: T201


def build(words_path: Path, font_path: Path, names_path: Path, out: Path) -> None:
    """Draw the atlas and write `world.png` (RGBA) and `world.json` (names) into `out`."""
    words = read_words(words_path)
    font = ImageFont.truetype(str(font_path), FONT_SIZE)
    sprites: list[NDArray[np.uint8]] = []
    owners: list[str] = []
    things = []
    for codes, name, synonyms in _things(words, _cldr_names(names_path)):
        first = len(sprites)
        sprites += [_sprite(font, code) for code in codes]
        owners += [name] * len(codes)
        things.append({"name": name, "synonyms": synonyms, "cells": [first, len(sprites)]})
    _warn_of_look_alikes(sprites, owners)
    stuffs = [{"name": n, "synonyms": _split(s)} for n, s in words["stuffs"]]
    kinds = {kind: _split(members) for kind, members in words["kinds"]}
    table = {"cell": CELL, "things": things, "stuffs": stuffs, "kinds": kinds}
    text = json.dumps(table, indent=1, ensure_ascii=False)
    text = re.sub(r"\n {4,}", " ", text)  # one class a line group: small diffs
    (out / "world.json").write_text(text + "\n", encoding="utf-8")
    Image.fromarray(_atlas(sprites)).save(out / "world.png", optimize=True)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--names", type=Path, default=NAMES)
    parser.add_argument("--out", type=Path, default=ASSETS)
    given = parser.parse_args()
    build(HERE / "words.txt", given.font, given.names, given.out)


if __name__ == "__main__":
    main()
