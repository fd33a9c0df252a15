"""Contact sheet: one picture with overlays of frames spread evenly over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.sinks.files import open_output, written

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["SheetSink"]

GAP = 4
"""Pixels between pictures."""


class SheetSink:
    """Writes a PNG with a grid of overlays when the run ends.

    Nobody knows how long a run will be: every `stride`-th frame is kept, and when twice as many as
    fit are there, every other one goes and the stride doubles. So the kept ones stay evenly spread.

    Args:
        spec: the file; it is replaced.
        columns: pictures in a row.
        rows: rows of pictures.
        width: of one picture's longer side, pixels.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, spec: str, *, columns: int = 4, rows: int = 3, width: int = 320) -> None:
        self.path = spec
        self.columns, self.rows, self.width = columns, rows, width
        self._kept: list[NDArray[np.uint8]] = []
        self._seen, self._stride = 0, 1

    def __enter__(self) -> Self:
        """Make sure that the file can be written."""
        open_output(self.path, "wb").close()
        return self

    def write(self, result: FrameResult) -> None:
        """Keep this frame's overlay, if it is its turn."""
        if self._seen % self._stride == 0:
            self._kept.append(self._small(draw(result)))
            if len(self._kept) == 2 * self.columns * self.rows:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # A picture that is high beyond measure is made narrower: no cell is higher than wide.
        scale = self.width / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Write the sheet."""
        cells = self.columns * self.rows
        if not self._kept:
            return
        spread = np.linspace(0, len(self._kept) - 1, min(cells, len(self._kept))).round()
        encoded, png = cv2.imencode(".png", self._grid([self._kept[int(k)] for k in spread]))
        if not encoded:
            raise SinkError(f"cannot encode {self.path} as PNG")
        with open_output(self.path, "wb") as file, written(self.path):
            file.write(png.tobytes())

    def _grid(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        tallest = max(len(picture) for picture in pictures)
        rows = -(-len(pictures) // self.columns)
        sheet = np.full(
            (rows * (tallest + GAP) + GAP, self.columns * (self.width + GAP) + GAP, 3), 32, np.uint8
        )
        for k, picture in enumerate(pictures):
            top = GAP + (k // self.columns) * (tallest + GAP)
            left = GAP + (k % self.columns) * (self.width + GAP)
            sheet[top : top + len(picture), left : left + picture.shape[1]] = picture
        return sheet
