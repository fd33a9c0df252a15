"""Draw the learning curves of a run: `plot_training.py runs/nano/log.jsonl curve.png`."""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCURACY: Final = ("things_ap50", "stuff_ap50", "agnostic_recall50", "miou", "pixel_miou")
LOSSES: Final = (
    "align",
    "class_ce",
    "l1",
    "mask",
    "semantic",
    "feature_map",
    "s/align",
    "s/referring_ce",
)
"""Weighted losses; `s/` marks steps of sentences."""
FORMER: Final = {"name": "class_ce", "s/meant": "s/referring_ce"}
"""Keys in the logs of earlier runs, with what they are called now."""


def draw(log: Path, image: Path) -> None:
    """Draw accuracy and losses over the number of images, from a run's `log.jsonl`."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lines = [{FORMER.get(key, key): value for key, value in row.items()} for row in rows]
    steps = [line for line in lines if "images" in line]
    seen = {line["step"]: line["images"] / 1000 for line in steps}
    per_step = steps[-1]["images"] / steps[-1]["step"] / 1000
    points = [(seen.get(line["step"], line["step"] * per_step), line) for line in lines]
    mpl.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    _lines(left, points, ACCURACY, "o-")
    left.set(title="unseen scenes", ylim=(0, 1))
    _lines(right, points, LOSSES, "-")
    right.set(title="weighted losses (s/: sentences)", yscale="log")
    for axes in (left, right):
        axes.set_xlabel("thousand images")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(image)


def _lines(
    axes: Axes, points: list[tuple[float, dict[str, Any]]], names: tuple[str, ...], style: str
) -> None:
    sources = dict.fromkeys(line.get("source", "") for _, line in points)
    for name, source in product(names, sources):
        known = [
            (x, line[name])
            for x, line in points
            if name in line and line.get("source", "") == source
        ]
        if known:
            label = f"{name} {Path(source).name}".strip()
            axes.plot(*zip(*known, strict=True), style, markersize=3, label=label)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
