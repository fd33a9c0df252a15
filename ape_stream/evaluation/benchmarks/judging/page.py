"""The page of the worst images: one file that needs no network and no script."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.judging.worst import Case, Kind, Mark, Worst
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset

__all__ = ["NAMED", "SIDE", "page"]

SIDE: Final = 640
"""Longest side of a thumbnail, pixels."""
NAMED: Final = 20
"""Errors of an image that are named below it."""
_QUALITY: Final = 80
"""Of JPEG: the page holds all of its images."""
# Colours as of overlays: colour-blind people can distinguish them, too.
_HEAD: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }}
main {{ display: grid; gap: 1em; grid-template-columns: repeat(auto-fill, minmax(22em, 1fr)) }}
figure {{ margin: 0; padding: .6em; border: 1px solid #ccc; border-radius: .4em }}
svg {{ width: 100%; height: auto; display: block }}
rect {{ fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; pointer-events: all }}
.missed {{ stroke: #e69f00; color: #a06d00; stroke-dasharray: 6 4 }}
.alarm {{ stroke: #d55e00; color: #b34700 }} .right {{ stroke: #56b4e9; color: #256b93 }}
figcaption {{ overflow-wrap: anywhere; margin-top: .4em }} li {{ display: inline }}
ul {{ margin: .2em 0 0; padding: 0 }} li + li::before {{ content: ", "; color: #222 }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #181818 }}
 li + li::before {{ color: #ddd }} .missed {{ color: #e69f00 }} .alarm {{ color: #f07e33 }}
 .right {{ color: #56b4e9 }} }}
</style></head><body>
"""


def page(title: str, found: Sequence[tuple[Dataset, Worst]]) -> Iterator[str]:
    """The page in parts, so that no more than one image is in memory.

    Args:
        title: What was judged.
        found: The worst images of each task, and its data.

    Raises:
        SourceError: an image cannot be read.
    """
    yield _HEAD.format(title=html.escape(title))
    yield f"<h1>{html.escape(title)}</h1>\n"
    for data, worst in found:
        yield f"<h2>{html.escape(worst.task)}</h2>\n<p>{html.escape(_summary(worst))}</p>\n<main>\n"
        for case in worst.cases:
            yield _figure(data.load(case.record), case)
        yield "</main>\n"
    yield "</body></html>\n"


def _summary(worst: Worst) -> str:
    shown = f"{len(worst.cases)} of {worst.images} images, the worst first."
    if worst.threshold is None:
        return f"{shown} Wrong pixels are red."
    return (
        f"{shown} Detections with a score of {worst.threshold:.3f} or more count. Dashed: missed."
        " Red: false alarm. Blue: right. Rest the pointer on a box to read its name."
    )


def _figure(image: NDArray[np.uint8], case: Case) -> str:
    height, width = image.shape[:2]
    boxes = "".join(map(_rect, reversed(case.marks)))  # errors last: on top
    return (
        f'<figure><svg viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="{_thumbnail(image, case.wrong)}"/>'
        f"{boxes}</svg><figcaption>{html.escape(_caption(case))}{_list(case.marks)}</figcaption>"
        "</figure>\n"
    )


def _css(kind: Kind) -> str:
    return kind.split()[-1]


def _label(mark: Mark) -> str:
    score = "" if mark.score is None else f" {mark.score:.2f}"
    return html.escape(f"{mark.name}{score}")


def _rect(mark: Mark) -> str:
    x, y, width, height = (round(value, 1) for value in mark.xywh)
    return (
        f'<rect class="{_css(mark.kind)}" x="{x}" y="{y}" width="{width}" height="{height}">'
        f"<title>{mark.kind}: {_label(mark)}</title></rect>"
    )


def _caption(case: Case) -> str:
    name = case.record.path.name
    if case.wrong is not None:
        return f"{name}: {100 * case.errors:.1f} % of the pixels are wrong"
    counts = [f"{case.count('missed')} missed", f"{case.count('false alarm')} false alarms"]
    return f"{name}: {', '.join(counts)}, {case.count('right')} right"


def _list(marks: tuple[Mark, ...]) -> str:
    wrong = [mark for mark in marks if mark.kind != "right"]
    if not wrong:
        return ""
    lines = [f'<li class="{_css(mark.kind)}">{_label(mark)}</li>' for mark in wrong[:NAMED]]
    if wrong[NAMED:]:
        lines.append(f"<li>{len(wrong) - NAMED} more</li>")
    return f"<ul>{''.join(lines)}</ul>"


def _thumbnail(image: NDArray[np.uint8], wrong: NDArray[np.bool_] | None) -> str:
    """The image, and wrong pixels in red, as a data URI."""
    if wrong is not None and wrong.shape == image.shape[:2]:
        image = image.copy()
        image[wrong] = (image[wrong] // 2 + np.array([0, 0, 127])).astype(np.uint8)
    scale = min(1.0, SIDE / max(image.shape[:2]))
    small: NDArray[Any] = image
    if scale < 1:
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
