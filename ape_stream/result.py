"""Everything known of one frame at the end of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import numpy as np
    import supervision as sv
    from numpy.typing import NDArray

    from ape_stream.values.frame import Frame
    from ape_stream.values.instances import Instances
    from ape_stream.values.prompts import PromptSet

__all__ = ["FrameResult"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """Everything known of one frame at the end of the pipeline."""

    frame: Frame
    """The frame itself."""
    instances: Instances
    """What was found, tracked."""
    prompts: PromptSet
    """The prompts of this frame; `instances.prompt_ids` point into it."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds spent per stage, by stage name."""

    @property
    def detections(self) -> sv.Detections:
        """The instances as `supervision.Detections`, masks dense only when touched."""
        from ape_stream.interop import to_detections  # noqa: PLC0415 (supervision takes 1 s to import)

        return to_detections(self.instances, self.prompts, self.frame)

    def plot(self) -> NDArray[np.uint8]:
        """The frame with masks, boxes and labels drawn in: (H, W, 3) uint8 blue-green-red, new."""
        from ape_stream.draw import draw  # noqa: PLC0415 (see above)

        return draw(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write what `plot` shows as an image; the suffix decides the format.

        Raises:
            SinkError: the file cannot be written, or OpenCV has no such format.
        """
        import cv2  # noqa: PLC0415 (see above)

        try:
            done, data = cv2.imencode(Path(path).suffix or ".png", self.plot())
        except cv2.error:
            done = False
        if not done:
            raise SinkError(f"cannot write {path}: give it the suffix of an image, such as .png")
        try:
            Path(path).write_bytes(data.tobytes())
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror or error}") from error

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        import cv2  # noqa: PLC0415 (see above)

        return cv2.imencode(".png", self.plot())[1].tobytes()

    def __repr__(self) -> str:
        found = self.instances.prompt_ids.tolist()
        counts = {self.prompts[k].text: found.count(k) for k in dict.fromkeys(found)}
        names = ", ".join(f"{count} {text}" for text, count in counts.items()) or "nothing"
        return f"FrameResult({self.frame!r}: {names})"
