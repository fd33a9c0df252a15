"""Masks cut to their extent: cut and paste, upsample, run lengths, overlap."""

from ape_stream.masks.ops import (
    Polygon,
    area,
    box,
    boxes,
    containment_matrix,
    cut,
    decode_rle,
    encode_rle,
    from_bits,
    from_logits,
    iou_matrix,
    label_map,
    paint_order,
    paste,
    polygons,
)

__all__ = [
    "Polygon",
    "area",
    "box",
    "boxes",
    "containment_matrix",
    "cut",
    "decode_rle",
    "encode_rle",
    "from_bits",
    "from_logits",
    "iou_matrix",
    "label_map",
    "paint_order",
    "paste",
    "polygons",
]
