"""Average precision at IoU 0.5 of OpenImages: federated annotations, group boxes, a class tree.

A detection is judged if its class was verified for its image, to be present or absent. Each one
looks at the single true box that it overlaps most and has no second choice. A group box stands for
five or more instances: all detections inside it that found no box of their own count once, with
the highest score among them (Open Images Challenge, evaluation of object detection).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.overlap import box_iou
from ape_stream.evaluation.benchmarks.scoring.pairs import (
    best_of_images,
    by_pair,
    in_pairs,
    pairs_of,
)
from ape_stream.evaluation.benchmarks.scoring.records import Scores, mean_percent, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["DETECTIONS", "Ancestors", "Groups", "ancestors", "judged", "score"]

DETECTIONS = 1000
"""Detections of an image that count, over all classes, before they are expanded."""
IOU = 0.5
"""From this overlap on a detection is right; for a group, the part of the detection inside it."""
Ancestors = dict[int, tuple[int, ...]]
"""Class id to the ids of all classes above it, rising; the root is none of them."""
Groups = Literal["official", "challenge"]
"""How group boxes count: as any other box, as in APE's own figures, or by the challenge's rule."""


def ancestors(tree: Mapping[str, Any], ids: Mapping[str, int]) -> Ancestors:
    """The classes above each class.

    Args:
        tree: The challenge's hierarchy: `{"LabelName": ..., "Subcategory": [...]}`.
        ids: Class ids by label name, such as `{"/m/0jbk": 5}`; other labels are left out.
    """
    above: dict[int, set[int]] = defaultdict(set)

    def walk(node: Mapping[str, Any], path: tuple[int, ...]) -> None:
        for child in node.get("Subcategory", ()):
            name = child["LabelName"]
            if name in ids:
                above[ids[name]].update(path)
                walk(child, (*path, ids[name]))
            else:
                walk(child, path)

    walk(tree, ())
    return {key: tuple(sorted(found)) for key, found in above.items() if found}


def judged(
    truth: RegionTruth,
    found: FoundRegions,
    tree: Ancestors | None = None,
    detections: int = DETECTIONS,
) -> FoundRegions:
    """What of the detections counts, itself or as one of its ancestors.

    Whole images may be given in any portions; `score` of all that is left gives the same figures.
    """
    best = best_of_images(found, detections)
    listed = _verified(truth)
    keep = in_pairs(pairs_of(best), listed)
    for key, above in (tree or {}).items():
        of_class = np.flatnonzero(best.class_ids == key)
        for other in above:
            pairs = pairs_of(best)[of_class]
            pairs[:, 1] = other
            keep[of_class] |= in_pairs(pairs, listed)
    return best.select(keep)


def score(
    truth: RegionTruth,
    found: FoundRegions,
    tree: Ancestors | None = None,
    groups: Groups = "official",
    detections: int = DETECTIONS,
) -> Scores:
    """AP50 of boxes, and with a class tree AP50 of the detections copied to all ancestors.

    The truth is not expanded: the challenge's own figure needs a truth that is.

    Args:
        truth: The annotated boxes with their federation: classes verified for each image.
        found: All detections, or what `judged` left of them.
        tree: The classes above each class; without it only the plain figure is made.
        groups: How group boxes count.
        detections: How many of an image count, over all classes.

    Raises:
        ValueError: no federation is given, or a true box is of a class that it says is not there.
    """
    if not in_pairs(pairs_of(truth.regions), _positive(truth)).all():
        raise ValueError("OpenImages: a true box is of a class that is not verified for its image")
    best = judged(truth, found, tree, detections)
    tables = {"box/AP50": _ap50(truth, best, groups)}
    if tree is not None:
        tables["box/AP50 expanded"] = _ap50(truth, _expanded(best, tree), groups)
    figures = {name: mean_percent(table[~np.isnan(table)]) for name, table in tables.items()}
    by_class = {
        name: {figure: percent(table[k]) for figure, table in tables.items()}
        for k, name in enumerate(truth.classes.names)
    }
    return Scores(figures, by_class)


def _positive(truth: RegionTruth) -> NDArray[np.int64]:
    if truth.federation is None:
        raise ValueError("OpenImages scores need the federation: classes verified for each image")
    return truth.federation.positive


def _verified(truth: RegionTruth) -> NDArray[np.int64]:
    positive = _positive(truth)
    assert truth.federation is not None  # noqa: S101 (`_positive` checked it)
    return np.concatenate([positive, truth.federation.negative])


def _expanded(found: FoundRegions, tree: Ancestors) -> FoundRegions:
    """Every detection, and a copy of it for each class above its own."""
    labels = [(int(key), *tree.get(int(key), ())) for key in found.class_ids]
    rows = np.repeat(np.arange(len(found)), [len(one) for one in labels])
    copies = found.select(rows)
    class_ids = np.array([key for one in labels for key in one], np.int32)
    return type(found)(copies.image_ids, class_ids, copies.xywh, copies.scores)


def _ap50(truth: RegionTruth, found: FoundRegions, groups: Groups) -> NDArray[np.float64]:
    """(C,) AP of each class, 0..1; NaN without a true box."""
    found = found.select(in_pairs(pairs_of(found), _verified(truth)))
    true_rows, found_rows = by_pair(truth.regions), by_pair(found)
    matches: dict[int, list[_Match]] = defaultdict(list)
    none = np.zeros(0, np.intp)
    is_group = truth.regions.groups & (groups == "challenge")
    for pair in sorted(true_rows.keys() | found_rows.keys()):
        true, rows = true_rows.get(pair, none), found_rows.get(pair, none)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        overlap = box_iou(found.xywh[rows], truth.regions.xywh[true], is_group[true])
        matches[pair[1]].append(_match(found.scores[rows], overlap, is_group[true]))
    return np.array([_average_precision(matches[key]) for key in truth.classes.ids.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """Detections of one image and class."""

    scores: NDArray[np.float64]
    """(N,) with one for all detections that a group box took."""
    right: NDArray[np.bool_]
    """(N,)."""
    true: int
    """How many true boxes there are, group boxes too."""


def _match(
    scores: NDArray[np.float32], overlap: NDArray[np.float64], groups: NDArray[np.bool_]
) -> _Match:
    """Judge the detections of one image and class.

    Args:
        scores: (N,) falling.
        overlap: (N, M) with the true boxes.
        groups: (M,) which of them are group boxes.
    """
    right = _first_on_its_box(overlap[:, ~groups])
    taken, best = np.zeros(len(scores), np.bool_), []
    inside = overlap[:, groups]
    if inside.size:
        taken = ~right & (inside.max(1) >= IOU)
        group = inside.argmax(1)[taken]
        # Scores fall: the first detection of a group has its highest.
        _, first = np.unique(group, return_index=True)
        best = scores[taken][first].tolist()
    return _Match(
        scores=np.concatenate([scores[~taken], best]).astype(np.float64),
        right=np.concatenate([right[~taken], np.ones(len(best), np.bool_)]),
        true=len(groups),
    )


def _first_on_its_box(overlap: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,): is a detection the first one on the box that it overlaps most?"""
    right = np.zeros(len(overlap), np.bool_)
    if overlap.size:
        rows = np.flatnonzero(overlap.max(1) >= IOU)
        _, first = np.unique(overlap.argmax(1)[rows], return_index=True)
        right[rows[first]] = True
    return right


def _average_precision(images: list[_Match]) -> float:
    """Area under the falling envelope of precision over recall, as VOC takes it at all points."""
    true = sum(one.true for one in images)
    if not true:
        return float("nan")
    scores = np.concatenate([one.scores for one in images])
    right = np.concatenate([one.right for one in images])[np.argsort(-scores, kind="stable")]
    if not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * right).sum() / true)
