"""Mean IoU and its relatives, from the confusion of classes over all pixels.

The mean is over the classes that the truth holds: a class that is only predicted lowers the
figures of the classes whose pixels it takes, and has none of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_stream.evaluation.benchmarks.scoring.records import Scores, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.semantic import Confusion

__all__ = ["score"]


def score(confusion: Confusion, names: Sequence[str], missing: int = 0) -> Scores:
    """mIoU, frequency-weighted IoU (fwIoU), mean and total pixel accuracy (mACC, pACC).

    Args:
        confusion: Pixels of all images; confusions of several shards are merged.
        names: (C) of the classes.
        missing: Images without a prediction; all their pixels were counted as no class.
    """
    iou, recall = confusion.iou, confusion.recall
    pixels = confusion.counts.sum(1)
    occurs = pixels > 0
    figures: dict[str, float | None] = dict.fromkeys(("mIoU", "fwIoU", "mACC", "pACC"))
    if occurs.any():
        figures["mIoU"] = percent(confusion.miou)
        figures["fwIoU"] = percent(float((iou * pixels)[occurs].sum() / pixels.sum()))
        figures["mACC"] = percent(float(recall[occurs].mean()))
        figures["pACC"] = percent(confusion.accuracy)
    by_class = {
        name: {"IoU": percent(iou[k]), "ACC": percent(recall[k])} for k, name in enumerate(names)
    }
    note = f"{missing} images without a prediction were judged as nothing found"
    return Scores(figures, by_class, (note,) if missing else ())
