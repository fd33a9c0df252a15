"""What moves through the pipeline: frames, prompts, masks, instances, results.

All types are frozen and checked when made. Arrays inside them are read-only views, so a value can
be handed from thread to thread without a copy. This is the public import; the definitions are in
`ape_stream.values` and `ape_stream.result`.
"""

from ape_stream.result import FrameResult
from ape_stream.values.frame import Frame
from ape_stream.values.instances import Instances, Mask
from ape_stream.values.maps import MapKind, Maps, PanopticMap, Segment, SemanticMap
from ape_stream.values.prompts import Prompt, PromptKind, PromptSet

__all__ = [
    "Frame",
    "FrameResult",
    "Instances",
    "MapKind",
    "Maps",
    "Mask",
    "PanopticMap",
    "Prompt",
    "PromptKind",
    "PromptSet",
    "Segment",
    "SemanticMap",
]
