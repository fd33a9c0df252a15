"""Everything known of one frame at the end of the pipeline."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import SinkError, UsageError, reason_of
from ape_stream.masks import label_map, upsampled
from ape_stream.values.maps import Maps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    import numpy as np
    import supervision as sv
    from numpy.typing import NDArray

    from ape_stream.values.frame import Frame
    from ape_stream.values.instances import Instances
    from ape_stream.values.maps import MapKind, PanopticMap, SemanticMap
    from ape_stream.values.prompts import PromptSet

__all__ = ["FrameResult"]

_SHOWN_CHARS = 80
"""Of what was found, in one line."""


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
    maps: Maps = field(default_factory=Maps)
    """Maps of every pixel, where the run was asked for them; see `semantic` and `panoptic`."""

    @property
    def detections(self) -> sv.Detections:
        """The instances as `supervision.Detections`, masks dense only when touched."""
        from ape_stream.interop import to_detections  # noqa: PLC0415 (supervision takes 1 s to import)

        return to_detections(self.instances, self.prompts, self.frame)

    def semantic(self) -> NDArray[np.uint16]:
        """The prompt of every pixel: (H, W) uint16, 0 = nothing, k = prompt k-1, read-only.

        Raises:
            UsageError: the run was not asked for it; the message says how to ask.
        """
        return self._semantic().ids

    def semantic_scores(self) -> NDArray[np.float32]:
        """How strong every prompt is at every pixel, (P, H, W) float32, made when called.

        Sums over all queries of weight times mask probability: not normalised, may exceed 1. The
        largest is the prompt of the pixel, where any query is sure enough.

        Raises:
            UsageError: the run was not asked for a semantic map, or it came without scores.
        """
        found = self._semantic()
        if found.coarse is None:
            raise UsageError("a semantic map that came over the wire has no scores")
        return upsampled(found.coarse, self.frame.size, found.filled)

    def _semantic(self) -> SemanticMap:
        if self.maps.semantic is None:
            raise _missing("semantic")
        return self.maps.semantic

    def panoptic(self) -> PanopticMap:
        """The segment of every pixel, and the table of the segments.

        Raises:
            UsageError: the run was not asked for it; the message says how to ask.
        """
        if self.maps.panoptic is None:
            raise _missing("panoptic")
        return self.maps.panoptic

    def label_image(self) -> NDArray[np.uint16]:
        """The prompt of every pixel, (H, W) uint16: 0 = nothing, k = prompt k-1.

        The semantic map where there is one, else the masks painted, small ones over large ones.

        Raises:
            UsageError: the model gave boxes only.
        """
        if self.maps.semantic is not None:
            return self.maps.semantic.ids
        found = self.instances
        return label_map(
            found.masks_for("a label image"), found.size, (found.prompt_ids + 1).tolist()
        )

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
            raise SinkError(f"cannot write {path}: {reason_of(error)}") from error

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        import cv2  # noqa: PLC0415 (see above)

        return cv2.imencode(".png", self.plot())[1].tobytes()

    def __repr__(self) -> str:
        found = self.instances.prompt_ids.tolist()
        counts = {self.prompts[k].text: found.count(k) for k in dict.fromkeys(found)}
        names = ", ".join(f"{count} {text}" for text, count in counts.items()) or "nothing"
        shown = textwrap.shorten(names, _SHOWN_CHARS, placeholder=" ...")
        return f"FrameResult({self.frame!r}: {shown})"


def _missing(kind: MapKind) -> UsageError:
    return UsageError(
        f'there is no {kind} map: ask for it with maps=("{kind}",) in open(), or maps = ["{kind}"]'
        " in TOML; results read from a file, and most of those from the wire, have instances only"
    )
