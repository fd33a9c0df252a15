"""Indexed PNGs as DAVIS has them, https://davischallenge.org: `<video>/<frame>.png`.

A pixel is the number of an object, 0 for none; a track keeps its number over the whole video.
`<video>/legend.jsonl` says for each number which prompt and track it is. A frame with a number
above 255 is a PNG of 16 bits without colours. Where regions overlap, the small one is on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.formats.shapes import COLOURS, flatten
from ape_stream.formats.spool import to_json
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from ape_stream.formats.records import VideoRecord
    from ape_stream.formats.writer import Image, Region

__all__ = ["LabelMaps"]

_MAX = 0xFFFF
"""Largest number of a pixel in 16 bits."""


class LabelMaps(Layout):
    """The layout of indexed PNGs."""

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Start the video's legend."""
        del video
        self._numbers: dict[tuple[int, int], int] = {}
        self._count = 0
        self._legend = self.open_text(f"{folder}/legend.jsonl")

    def frame(self, image: Image) -> None:
        """Write the image's PNG."""
        numbers = [self._number(region) for region in image.regions]
        painted = flatten(image, [min(number, _MAX) for number in numbers], self.losses)
        if any(number > _MAX for number in numbers):
            self.losses.add("regions beyond 65535 objects a video", sum(n > _MAX for n in numbers))
            painted[painted == _MAX] = 0
        name = f"{image.path}.png"
        if painted.max(initial=0) > 0xFF:
            self.write_png(name, painted)
        else:
            self.write_png(name, painted.astype(np.uint8), COLOURS)

    def _number(self, region: Region) -> int:
        """The number of a region's object; where it has no track, one of its own."""
        track_id = region.record.track_id
        key = (0, region.id) if track_id is None else (region.category_id, track_id)
        if key not in self._numbers:
            self._count += 1
            if track_id is None:  # never asked for again
                self._numbers.pop(key, None)
            else:
                self._numbers[key] = self._count
            values = {"value": self._count, "prompt": region.record.prompt, "track_id": track_id}
            self._legend.write(to_json(values) + "\n")
            return self._count
        return self._numbers[key]

    def end_video(self) -> None:
        """End the legend."""
        self._legend.close()
