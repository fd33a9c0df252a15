"""Where to look: only what lies in the areas that somebody has drawn counts.

The model sees the whole image; its regions are then chosen. (The official mask prompt restricts
the network's proposals instead: `ape_model.reference.mask_prompt`.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.types import Maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_nodes.web.protocol import Zone
    from ape_stream.types import FrameResult, Instances, PanopticMap, SemanticMap

__all__ = ["within"]

_Inside = dict[int, "NDArray[np.bool_]"]
"""(H, W) by position of the prompt; prompts that are looked for everywhere are left out."""


def within(result: FrameResult, looks: Sequence[Zone]) -> FrameResult:
    """The result without what lies outside of the areas where to look.

    An instance or a panoptic segment stays if more than half of its area is inside; a semantic map
    is cut at the edge. An area that names prompts restricts only them.

    Args:
        result: With regions of the whole frame.
        looks: Zones of the kind `look`; none: everywhere.
    """
    inside: _Inside = {}
    for position, text in enumerate(result.prompts.texts):
        own = tuple(zone.points for zone in looks if not zone.prompts or text in zone.prompts)
        if own:
            inside[position] = _filled(own, result.frame.size)
    if not inside:
        return result
    maps = result.maps
    return replace(
        result,
        instances=_instances(result.instances, inside),
        maps=Maps(
            semantic=None if maps.semantic is None else _semantic(maps.semantic, inside),
            panoptic=None if maps.panoptic is None else _panoptic(maps.panoptic, inside),
            queries=maps.queries,
        ),
    )


@lru_cache(maxsize=64)
def _filled(
    areas: tuple[tuple[tuple[float, float], ...], ...], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """(H, W): the pixels whose middle is in any of the polygons of parts of width and height."""
    filled = np.zeros(size, np.bool_)
    for points in areas:
        filled |= _polygon(np.array(points) * (size[1], size[0]), size)
    filled.flags.writeable = False
    return filled


def _polygon(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Even-odd rule: a pixel is inside where an odd number of sides is left of its middle."""
    crossed = np.zeros((size[0], size[1] + 1), np.int8)
    rows = np.arange(size[0]) + 0.5
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        meets = np.flatnonzero((rows < y1) != (rows < y2))
        x = x1 + (rows[meets] - y1) * (x2 - x1) / (y2 - y1 or 1.0)
        first = np.ceil(x - 0.5).astype(int).clip(0, size[1])  # whose middle is not left of it
        crossed[meets, first] ^= 1
    return np.logical_xor.accumulate(crossed[:, :-1].view(np.bool_), axis=1)


def _instances(found: Instances, inside: _Inside) -> Instances:
    kept = [_mostly(found, k, inside.get(int(found.prompt_ids[k]))) for k in range(len(found))]
    return found.select(np.array(kept, np.bool_))


def _mostly(found: Instances, k: int, area: NDArray[np.bool_] | None) -> bool:
    if area is None:
        return True
    if found.masks is not None:
        mask = found.masks[k]
        rows, cols = mask.bitmap.shape
        part = area[mask.y : mask.y + rows, mask.x : mask.x + cols]
        return 2 * int(np.count_nonzero(part & mask.bitmap)) > int(np.count_nonzero(mask.bitmap))
    x1, y1, x2, y2 = np.rint(found.boxes[k]).astype(int).tolist()
    part = area[max(0, y1) : y2, max(0, x1) : x2]
    return bool(part.size) and 2 * int(np.count_nonzero(part)) > part.size


def _semantic(found: SemanticMap, inside: _Inside) -> SemanticMap:
    ids = found.ids.copy()
    for position, area in inside.items():
        ids[(ids == position + 1) & ~area] = 0
    return replace(found, ids=ids)


def _panoptic(found: PanopticMap, inside: _Inside) -> PanopticMap:
    ids, kept = found.ids.copy(), []
    for segment in found.segments:
        area = inside.get(segment.prompt_id)
        pixels = found.ids == segment.id
        if area is None or 2 * int(np.count_nonzero(pixels & area)) > segment.area:
            kept.append(segment)
        else:
            ids[pixels] = 0
    return replace(found, ids=ids, segments=tuple(kept))
