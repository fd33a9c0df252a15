"""Everything known of one frame at the end of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import supervision as sv

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
