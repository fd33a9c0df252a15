"""How large an index is, and how much of it is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.alignment import scores_of
from ape_stream.index.levels_file import levels_size
from ape_stream.index.store import open_store
from ape_stream.indexing.base import read_reference

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.index.store import Store

__all__ = ["statistics_of"]

THRESHOLDS: Final = (0.3, 0.5, 0.7)


def statistics_of(root: Path) -> dict[str, Any]:
    """What `index --stats` reports, as JSON values.

    `recheck` is the share of pairs of a frame and a reference word for which an answer at that
    threshold is not certain: a query that was dropped may reach it. `bound` is how high that score
    may be, at the median and in 95 of 100 pairs.

    Raises:
        ConfigError: there is no index, or it cannot be read.
    """
    store = open_store(root)
    frames = sum(len(part.frames.index) for part in store.parts)
    hours = sum(part.info.end_s - part.info.start_s for part in store.parts) / 3600
    sizes = _sizes(store)
    total = sum(sizes.values())
    return {
        "videos": len(store.videos),
        "frames": frames,
        "hours": round(hours, 4),
        "rows": store.rows,
        "rows_per_frame": round(store.rows / max(1, frames), 2),
        "dropped_per_frame": round(sum(p.info.dropped for p in store.parts) / max(1, frames), 2),
        "bytes": {**sizes, "total": total},
        "bytes_per_frame": round(total / max(1, frames)),
        # Of each frame at 30 frames a second, so that videos of any rate compare.
        "bytes_per_hour_at_30_hz": round(total / max(1, frames) * 30 * 3600),
        "reference_words": store.manifest.reference,
        **_certainty(store),
        "missing": [f"{one.info.path}: {one.reason}" for one in store.missing],
    }


def _sizes(store: Store) -> dict[str, int]:
    """Bytes by what they hold."""
    states = sum(part.rows.state.nbytes for part in store.parts)
    masks = sum(part.mask_column.nbytes for part in store.parts)
    rows = sum(part.info.rows_bytes for part in store.parts)
    frames = sum(part.info.frames_bytes for part in store.parts)
    own = {path for path in store.root.glob("*") if path.is_file()}
    rest = sum(path.stat().st_size for path in own)
    return {
        "states": states,
        "masks": masks,
        "boxes": rows - states - masks,
        "frames": frames,
        "levels": sum(levels_size(store.root, part) for part in store.parts),
        "tables": rest,
    }


def _certainty(store: Store) -> dict[str, Any]:
    reference = read_reference(store.root)
    each = [part.upper_bounds(reference.vectors, reference.biases) for part in store.parts]
    bounds = np.concatenate([*each, np.zeros((0, len(reference.texts)), np.float32)])  # (F, P)
    if bounds.size == 0 or not np.isfinite(bounds).any():
        return {"recheck": dict.fromkeys(map(str, THRESHOLDS), 0.0), "bound": None}
    scores = scores_of(bounds)
    recheck = {str(t): round(float((scores >= t).mean()), 5) for t in THRESHOLDS}
    median, high = np.quantile(scores, [0.5, 0.95]).tolist()
    return {"recheck": recheck, "bound": {"median": round(median, 4), "p95": round(high, 4)}}
