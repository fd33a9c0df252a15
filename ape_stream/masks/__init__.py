"""Masks, always cropped to their extent (decisions/0003).

ops       crop, paste, window, area, box(es), polygons, label_map: one mask at a time; extents
upsample  from_logits, from_bits: from what a network makes
segments  join_segments, id_pixels, segment_boxes: panoptic maps
dense     argmax_upsampled, upsampled: the best of several maps at every pixel
interpolation  the bilinear reading that `upsample` and `dense` share
rle       run lengths, and COCO's form of them
redact    redact: what a mask covers, made unrecognisable
overlap   iou_matrix, containment_matrix: many against many
merge     suppress_duplicates, merge_stuff: one instance of several
"""

import warnings
from typing import Any

from ape_stream.masks.dense import argmax_upsampled, upsampled
from ape_stream.masks.merge import DUPLICATE_CONTAINMENT, merge_stuff, suppress_duplicates
from ape_stream.masks.ops import (
    Polygon,
    area,
    box,
    boxes,
    crop,
    extents,
    label_map,
    paint_order,
    paste,
    polygons,
    window,
)
from ape_stream.masks.overlap import containment_matrix, iou_matrix
from ape_stream.masks.rle import (
    decode_rle,
    encode_rle,
    frame_run_lengths,
    from_run_lengths,
    rle_area,
    rle_run_lengths,
    run_lengths,
)
from ape_stream.masks.segments import id_pixels, join_segments, segment_boxes
from ape_stream.masks.upsample import from_bits, from_logits

__all__ = [
    "DUPLICATE_CONTAINMENT",
    "Polygon",
    "area",
    "argmax_upsampled",
    "box",
    "boxes",
    "containment_matrix",
    "crop",
    "decode_rle",
    "encode_rle",
    "extents",
    "frame_run_lengths",
    "from_bits",
    "from_logits",
    "from_run_lengths",
    "id_pixels",
    "iou_matrix",
    "join_segments",
    "label_map",
    "merge_stuff",
    "paint_order",
    "paste",
    "polygons",
    "rle_area",
    "rle_run_lengths",
    "run_lengths",
    "segment_boxes",
    "suppress_duplicates",
    "upsampled",
    "window",
]


def __getattr__(name: str) -> Any:
    if name == "cut":  # until 0.2
        warnings.warn("ape_stream.masks.cut is now called crop", DeprecationWarning, stacklevel=2)
        return crop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
