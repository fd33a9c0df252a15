"""LabelMe, https://github.com/wkentaro/labelme: `<video>/<frame>.json`, a file next to its image.

A region is polygons where these hold it: each part one, of the same `group_id`. With holes, or
parts of less than three corners, it is one shape of the type `mask`. Points are pixel centres, as
LabelMe draws polygons. A region without a mask is a rectangle.
"""

from __future__ import annotations

import base64
import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from ape_stream import masks
from ape_stream.formats.spool import to_json
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from ape_stream.formats.writer import Image, Region
    from ape_stream.types import Mask

__all__ = ["Labelme"]


class Labelme(Layout):
    """The layout of LabelMe."""

    def image_name(self, image: Image) -> str:
        """Next to its file."""
        return str(PurePosixPath(image.path).with_name(PurePosixPath(image.record.image).name))

    def frame(self, image: Image) -> None:
        """Write the image's file."""
        height, width = image.record.size
        values: dict[str, Any] = {
            "version": "5.5.0",  # of LabelMe, the first whose form of masks this is
            "flags": {},
            "shapes": [shape for region in image.regions for shape in self._shapes(region)],
            "imagePath": PurePosixPath(image.record.image).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self.write_text(f"{image.path}.json", to_json(values) + "\n")

    def _shapes(self, region: Region) -> list[dict[str, Any]]:
        record = region.record
        common: dict[str, Any] = {
            "label": record.prompt,
            "group_id": record.track_id,
            "description": f"score {record.score}",
            "flags": {},
        }
        if region.mask is None:
            x1, y1, x2, y2 = record.box
            corners = [[x1, y1], [x2, y2]]
            return [{**common, "points": corners, "shape_type": "rectangle", "mask": None}]
        return self._of_mask(region, region.mask, common)

    def _of_mask(self, region: Region, mask: Mask, common: dict[str, Any]) -> list[dict[str, Any]]:
        record = region.record
        parts = masks.polygons(mask)
        if not parts:
            self.losses.add("empty masks")
            return []
        outlines = all(not part.holes and len(part.outer) >= 3 for part in parts)
        if not outlines or (len(parts) > 1 and record.track_id is None):
            x1, y1, x2, y2 = masks.box(mask)
            corners = [[x1, y1], [x2 - 1, y2 - 1]]
            pixels = _png(mask.bitmap)
            return [{**common, "points": corners, "shape_type": "mask", "mask": pixels}]
        return [
            {**common, "points": part.outer.tolist(), "shape_type": "polygon", "mask": None}
            for part in parts
        ]


def _png(bitmap: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    data = io.BytesIO()
    PIL.Image.fromarray(bitmap.astype(np.uint8)).save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()
