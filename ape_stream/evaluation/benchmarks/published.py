"""Figures that others published, each with its source: `data/published.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping  # noqa: TC003 (read_table reads annotations while running)
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from ape_stream.tables import read_table

__all__ = ["PublishedFigure", "Source", "published"]

_FILE: Final = files("ape_stream.evaluation.benchmarks").joinpath("data", "published.toml")


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures were read."""

    title: str
    """Name of the paper or page, and of its table."""
    url: str
    """Its address."""


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One figure of one model."""

    model: str
    """Name of the model, with its variant."""
    task: str
    """A task, or a group whose figure is a mean over its tasks."""
    figure: str
    """Its name in `Scores.figures`."""
    value: float
    """In percent."""
    source: Source
    """Where it was read."""
    note: str = ""
    """What makes it differ from ours, such as training on the same data set."""


@dataclass(frozen=True, slots=True)
class _Results:
    """All figures of one model from one source."""

    model: str
    source: str
    figures: Mapping[str, Mapping[str, float]]
    note: str = ""


@cache
def published() -> tuple[PublishedFigure, ...]:
    """All of them, in the order of the file: the paper's model first."""
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    sources = {
        key: read_table(Source, one, f"{_FILE.name}: source {key}")
        for key, one in table["sources"].items()
    }
    results = [read_table(_Results, one, f"{_FILE.name}: a result") for one in table["results"]]
    return tuple(
        PublishedFigure(one.model, task, name, value, sources[one.source], one.note)
        for one in results
        for task, figures in one.figures.items()
        for name, value in figures.items()
    )
