"""How large an index is, and how much of it is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.alignment import scores_of
from ape_stream.index.dropped.certainty import Selected, lost_logits
from ape_stream.index.levels_file import levels_size
from ape_stream.index.scan import Words, logit_floor
from ape_stream.index.selection import select_pairs
from ape_stream.index.store import open_store
from ape_stream.indexing.base import read_reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.index.part import Part
    from ape_stream.index.store import Store

__all__ = ["statistics_of"]

THRESHOLDS: Final = (0.3, 0.5, 0.7)
SAMPLE: Final = 256
"""Frames that are asked for all reference words: about so many."""


def statistics_of(root: Path) -> dict[str, Any]:
    """What `index --stats` reports, as JSON values.

    Every byte is read and compared with its checksum. `recheck` is the share of frames for which
    the answer to all reference words at that threshold is not certain, of a sample.

    Raises:
        ConfigError: there is no index, or it cannot be read.
    """
    store = open_store(root).verified()
    frames = sum(len(part.frames.index) for part in store.parts)
    hours = sum(part.info.end_s - part.info.start_s for part in store.parts) / 3600
    sizes = _sizes(store)
    total = sum(sizes.values())
    per_frame = (total - sizes["tables"]) / max(1, frames)  # those hardly grow
    return {
        "videos": len(store.videos),
        "frames": frames,
        "hours": round(hours, 4),
        "rows": store.rows,
        "rows_per_frame": round(store.rows / max(1, frames), 2),
        "dropped_per_frame": round(sum(p.info.dropped for p in store.parts) / max(1, frames), 2),
        "bytes": {**sizes, "total": total},
        "bytes_per_frame": round(per_frame),
        # Of each frame at 30 frames a second, so that videos of any rate compare.
        "bytes_per_hour_at_30_hz": round(per_frame * 30 * 3600),
        "reference_words": store.manifest.reference,
        **_certainty(store),
        "missing": [f"{one.info.path}: {one.reason}" for one in store.missing],
    }


def _sizes(store: Store) -> dict[str, int]:
    """Bytes by what they hold."""
    infos = [part.info for part in store.parts]
    coarse = sum(int(part.frames.coarse_end[-1]) for part in store.parts)
    states = sum(info.states_bytes for info in infos)
    own = {path for path in store.root.glob("*") if path.is_file()}
    return {
        "states": states,
        "coarse": coarse,
        "masks": sum(info.blocks_bytes for info in infos) - coarse,
        "boxes": sum(info.rows_bytes for info in infos) - states,
        "frames": sum(info.frames_bytes for info in infos),
        "levels": sum(levels_size(store.root, part) for part in store.parts),
        "tables": sum(path.stat().st_size for path in own),
    }


def _certainty(store: Store) -> dict[str, Any]:
    """How many frames of a sample hold what is not certain, of any reference word."""
    reference = read_reference(store.root)
    total = sum(part.info.frames for part in store.parts)
    step = max(1, total // SAMPLE)
    uncertain, frames = dict.fromkeys(THRESHOLDS, 0), 0
    for part in store.parts:
        chosen = np.arange(0, part.info.frames, step)
        frames += len(chosen)
        for threshold in THRESHOLDS:
            thresholds = np.full(len(reference.texts), threshold, np.float32)
            words = Words(reference.vectors, reference.biases, thresholds)
            found = _regions(part, chosen, words, store.manifest.per_prompt)
            lost = lost_logits(part, chosen, words, found, store.manifest.per_prompt)  # (f, P)
            over = (lost >= logit_floor(thresholds)).any(axis=1)
            uncertain[threshold] += int(over.sum())
    return {"recheck": {str(t): round(n / max(1, frames), 5) for t, n in uncertain.items()}}


def _regions(part: Part, frames: NDArray[np.intp], words: Words, per_prompt: int) -> Selected:
    """What all words find in some frames."""
    rows = np.flatnonzero(np.isin(part.rows.frame, frames))
    logits = part.head.logits(part.states(rows), words.vectors, words.biases)  # (n, P)
    scores = scores_of(logits)
    at, asked = np.nonzero(scores >= words.thresholds)
    pairs = rows[at], asked, scores[at, asked]
    of_frame = part.rows.frame[pairs[0]].astype(np.int64)
    chosen = select_pairs(of_frame, asked, pairs[2], part.rows.box[pairs[0]], per_prompt)
    return Selected(*pairs).take(chosen)
