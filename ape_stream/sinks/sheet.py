"""Contact sheet: one image with overlays of frames spread evenly over the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.files import is_whole, written
from ape_stream.sinks.file_sink import FileSink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["SheetSink"]

GAP = 4
"""Pixels between images."""


class SheetSink(FileSink):
    """Writes a PNG with a grid of overlays when the run ends; of one frame, its overlay alone.

    How long a run will be is not known: every `stride`-th frame is kept, and when twice as many as
    fit are kept, every other one is dropped and the stride doubles. So those that are left are
    spread evenly.

    Args:
        spec: The file.
        columns: Images in a row.
        rows: Rows of images.
        width: Of one image's longer side, pixels.
        overwrite: Replace an older file.

    Raises:
        ConfigError: the file exists, or another run writes it.
        SinkError: the file cannot be written.
    """

    def __init__(
        self,
        spec: str,
        *,
        columns: int = 4,
        rows: int = 3,
        width: int = 320,
        overwrite: bool = False,
    ) -> None:
        super().__init__(spec, overwrite=overwrite)
        self.columns, self.rows, self.width = columns, rows, width
        self._only: NDArray[np.uint8] | None = None
        self._kept: list[NDArray[np.uint8]] = []
        self._seen, self._stride = 0, 1

    def __enter__(self) -> Self:
        """Make sure that the file can be written."""
        self.file.open()
        return self

    def write(self, result: FrameResult) -> None:
        """Keep this frame's overlay, if it is its turn."""
        if self._seen % self._stride == 0:
            overlay = draw(result)
            # In full size, as long as it is the only one.
            self._only = overlay if self._seen == 0 else None
            self._kept.append(self._small(overlay))
            # Halved at twice the cells, so that there are always enough for all of them.
            if len(self._kept) == 2 * self.columns * self.rows:
                self._kept = self._kept[::2]
                self._stride *= 2
        self._seen += 1

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # A very high image is made narrower: no cell is higher than wide.
        scale = self.width / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def close(self, error: BaseException | None = None) -> None:
        """Write the sheet."""
        with self.file.finishing(whole=is_whole(error) and self._seen > 0):
            if not self._seen:
                return
            encoded, png = cv2.imencode(".png", self._sheet())
            if not encoded:
                raise SinkError(f"cannot encode {self.file.path} as PNG")
            with written(self.file.path):
                self.file.part.write_bytes(png.tobytes())

    def _sheet(self) -> NDArray[np.uint8]:
        if self._only is not None:
            return self._only
        cells = self.columns * self.rows
        # Evenly spread, with the first and the last.
        spread = np.linspace(0, len(self._kept) - 1, min(cells, len(self._kept))).round()
        return self._grid([self._kept[int(k)] for k in spread])

    def _grid(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        tallest, widest = (max(image.shape[side] for image in images) for side in (0, 1))
        columns = min(self.columns, len(images))
        rows = -(-len(images) // columns)
        size = (rows * (tallest + GAP) + GAP, columns * (widest + GAP) + GAP, 3)
        sheet = np.full(size, 32, np.uint8)
        for k, image in enumerate(images):
            top = GAP + (k // columns) * (tallest + GAP)
            left = GAP + (k % columns) * (widest + GAP)
            sheet[top : top + len(image), left : left + image.shape[1]] = image
        return sheet
