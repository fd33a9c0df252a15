"""The masks of a frame as an index keeps them, by the plain form or by compiled loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.index.cells import PackedMaps, pack_maps, surely_drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.cells import Edges
    from ape_stream.indexing.loops import Loops

__all__ = ["packed"]


def packed(
    logits: NDArray[np.int8],
    filled: tuple[float, float],
    edges: Edges | None,
    compiled: Loops | None = None,
) -> tuple[PackedMaps, NDArray[np.uint8]]:
    """Masks (K, h, w) as `pack_maps` packs them, and which are `surely_drawn`, (K,).

    Args:
        logits: In sixteenths, from -127 to 127.
        filled: Rows and columns of the maps that the image fills.
        edges: Of `inside_boxes`, for all of them.
        compiled: Loops in place of NumPy's.
    """
    if compiled is None:
        return pack_maps(logits, edges), surely_drawn(logits, filled, edges)
    count, height, width = logits.shape
    positive = logits > 0
    bits = np.packbits(positive.reshape(count, height * width), axis=1)
    counts, numbers, drawn = compiled.deciding(logits, positive, edges, filled)
    return PackedMaps(bits, counts, numbers), drawn
