"""Suites of data sets, such as ODinW-35: mean and median over the figures of the sets."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from ape_stream.evaluation.benchmarks.scoring.records import Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["summarise"]


def summarise(sets: Mapping[str, Scores], figure: str) -> Scores:
    """Unweighted mean and median of one figure; sets without one are named in the notes.

    Args:
        sets: The scores by the name of each set.
        figure: Which figure of theirs, such as "box/AP".
    """
    values = {name: scores.figures.get(figure) for name, scores in sets.items()}
    known = [value for value in values.values() if value is not None]
    empty = [name for name, value in values.items() if value is None]
    notes = [f"{name}: {note}" for name, scores in sets.items() for note in scores.notes]
    if empty:
        left_out = ", ".join(empty)
        notes.append(f"without {figure}, left out of {len(values)} sets: {left_out}")
    figures = {
        f"{figure} mean": fmean(known) if known else None,
        f"{figure} median": median(known) if known else None,
    }
    return Scores(figures, {name: {figure: value} for name, value in values.items()}, tuple(notes))
