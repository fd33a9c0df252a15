"""The page to review tracks on: one file without a network, tracks sorted by doubt.

The page is made of `report.html` with the data put in: a line of JSON for each track, which its
script reads. Thumbnails are data URIs.
"""

from __future__ import annotations

import html
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from ape_stream.annotation.outputs import STRIPS
from ape_stream.files import PartFile, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ape_stream.batch.folder import OutFolder
    from ape_stream.batch.state import ClipState

__all__ = ["write_report"]

_DATA: Final = "<!-- data -->"
"""Where the tracks go in the template."""


def write_report(out: OutFolder, done: Sequence[ClipState]) -> None:
    """Write `report.html`.

    Args:
        out: The output folder.
        done: The clips that are done.

    Raises:
        SinkError: it cannot be written.
    """
    template = files("ape_stream.annotation").joinpath("report.html").read_text(encoding="utf-8")
    head, _, tail = template.partition(_DATA)
    page = PartFile(out.report, overwrite=True)
    page.open()
    with page.finishing(whole=True), written(page.part), page.stream("w") as stream:
        stream.write(head)
        # One script element for each clip: no single one has to fit in memory.
        for state in done:
            stream.writelines(_clip_data(state, out.clip_work(state.clip) / STRIPS))
        stream.write(tail)


def _clip_data(state: ClipState, strips: Path) -> Iterator[str]:
    """The tracks of a clip, a line of JSON each, as an element that no browser shows."""
    name = html.escape(state.clip.name, quote=True)
    yield f'<script type="application/x-ndjson" data-clip="{name}">\n'
    if strips.exists():
        with strips.open(encoding="utf-8") as lines:
            # No text can end the element or begin a comment in it: "<" is written as in JSON.
            yield from (line.replace("<", "\\u003c") for line in lines)
    yield "</script>\n"
