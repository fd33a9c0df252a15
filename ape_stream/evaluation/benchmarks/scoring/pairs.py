"""Pairs of an image and a class: for most benchmarks the unit that is judged on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, TrueRegions

__all__ = ["best_of_images", "by_pair", "in_pairs", "pairs_of"]


def pairs_of(regions: TrueRegions | FoundRegions) -> NDArray[np.int64]:
    """(N, 2) image id, class id of each region."""
    return np.stack([regions.image_ids, regions.class_ids], 1).astype(np.int64)


def in_pairs(pairs: NDArray[np.int64], listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,): is each of (N, 2) pairs among the (M, 2) listed ones?"""
    return np.isin(_keys(pairs), _keys(listed))


def by_pair(regions: TrueRegions | FoundRegions) -> dict[tuple[int, int], NDArray[np.intp]]:
    """Positions of the regions of each image id and class id, in their order; pairs rise."""
    pairs = pairs_of(regions)
    if not len(pairs):
        return {}
    keys = _keys(pairs)
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
    names = map(tuple, pairs[order[first]].tolist())
    return dict(zip(names, np.split(order, first[1:]), strict=True))


def best_of_images(found: FoundRegions, detections: int) -> FoundRegions:
    """The detections with the highest scores of each image, the first of equal ones."""
    order = np.lexsort((-found.scores, found.image_ids))  # stable: images, then falling scores
    ids = found.image_ids[order]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)
    return found.select(np.sort(order[rank < detections]))


def _keys(pairs: NDArray[Any]) -> NDArray[np.int64]:
    """(N,): one number for each pair; class ids are below 2^32, image ids below 2^31."""
    keys: NDArray[np.int64] = (pairs[:, 0].astype(np.int64) << 32) + pairs[:, 1]
    return keys
