"""PNG label maps: a picture per frame whose pixels say which region shows there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

import cv2

from ape_stream import masks
from ape_stream.errors import SinkError
from ape_stream.sinks.files import file_name, open_output, written

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.types import FrameResult

__all__ = ["LabelsSink"]


class LabelsSink:
    """Writes `<folder>/<stream>/<frame>.png`, uint16, and `<folder>/legend.jsonl`.

    Pixel value 0 is nothing; value k is the k-th region of the frame. The legend has a line per
    frame that names the prompt and the track of every value.

    Args:
        spec: the folder.

    Raises:
        SinkError: the folder or a file cannot be written.
    """

    def __init__(self, spec: str) -> None:
        self.folder = Path(spec)

    def __enter__(self) -> Self:
        """Open the legend."""
        self._legend = open_output(self.folder / "legend.jsonl", "w")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the legend."""
        with written(self.folder):
            self._legend.close()

    def write(self, result: FrameResult) -> None:
        """Write one frame's map and its line of the legend.

        Raises:
            SinkError: a file cannot be written.
        """
        frame, found = result.frame, result.instances
        path = self.folder / file_name(frame.stream) / f"{frame.index:06d}.png"
        encoded, png = cv2.imencode(".png", masks.label_map(found.masks, found.size))
        if not encoded:
            raise SinkError(f"cannot encode {path} as PNG: {found.size[1]}x{found.size[0]} pixels")
        with open_output(path, "wb") as file, written(path):
            file.write(png.tobytes())
        tracks = [0] * len(found) if found.track_ids is None else found.track_ids.tolist()
        regions = [
            {"value": k, "prompt": result.prompts[int(prompt_id)].text, "track_id": track or None}
            for k, (prompt_id, track) in enumerate(
                zip(found.prompt_ids, tracks, strict=True), start=1
            )
        ]
        line = {
            "file": f"{path.parent.name}/{path.name}",
            "time_s": frame.time_s,
            "regions": regions,
        }
        with written(self.folder):
            self._legend.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._legend.flush()
