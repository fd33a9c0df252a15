"""Figures of several folders, and published ones, next to each other: `ape-stream eval table`."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import ConfigError
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.published import PublishedFigure

__all__ = ["FORMATS", "Entry", "Run", "compared", "read_run"]


@dataclass(frozen=True, slots=True)
class Run:
    """The scores of one folder."""

    name: str
    """The folder's name."""
    title: str
    """Model and profile, and whether only some of the images were predicted."""
    figures: dict[tuple[str, str], float | None]
    """By task or suite, and name of the figure; in percent."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One figure of one run or of one published model."""

    task: str
    figure: str
    model: str
    """Name of the run's folder, or of the published model."""
    value: float | None
    """In percent; None where nothing could be judged."""
    delta: float | None = None
    """What the first run has more than this one, in points."""
    source: str = ""
    """Where it was read; empty for runs."""
    url: str = ""
    note: str = ""


def read_run(folder: Path) -> Run:
    """The scores of a folder.

    Raises:
        ConfigError: it has none, or they cannot be read.
    """
    try:
        table = json.loads(read_text(folder / "scores.json"))
        parts = {**table["tasks"], **table["suites"]}
        figures = {(t, f): v for t, one in parts.items() for f, v in one["figures"].items()}
        limit = f", NOT REAL: at most {table['limit']} images of a task" if table["limit"] else ""
        title = f"{table['model']}, {table['profile']}{limit}"
    except FileNotFoundError as error:
        message = f"{folder} has no scores.json: run 'ape-stream eval score' on it"
        raise ConfigError(message) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"cannot read the scores of {folder}: {error}") from error
    return Run(folder.name, title, figures)


def compared(runs: Sequence[Run], published: Sequence[PublishedFigure] = ()) -> list[Entry]:
    """Every figure of every run, then the published ones of the same tasks and names.

    Args:
        runs: At least one; differences are to the first.
        published: What is shown next to them.
    """
    keys = dict.fromkeys(key for run in runs for key in run.figures)
    entries = []
    for key in keys:
        first = runs[0].figures.get(key)
        for run in runs:
            if key in run.figures:
                value = run.figures[key]
                delta = _delta(first, value) if run is not runs[0] else None
                entries.append(Entry(*key, run.name, value, delta))
        entries += [
            Entry(
                *key,
                one.model,
                one.value,
                _delta(first, one.value),
                source=one.source.title,
                url=one.source.url,
                note=one.note,
            )
            for one in published
            if (one.task, one.figure) == key
        ]
    return entries


def _delta(first: float | None, value: float | None) -> float | None:
    return None if first is None or value is None else first - value


def _markdown(runs: Sequence[Run], entries: Sequence[Entry]) -> str:
    """A row for each figure, a column for each run and model; sources below."""
    models = dict.fromkeys([run.name for run in runs] + [entry.model for entry in entries])
    rows: dict[tuple[str, str], dict[str, str]] = {}
    sources: dict[tuple[str, str, str], int] = {}
    for entry in entries:
        mark = ""
        if entry.source:
            number = sources.setdefault((entry.source, entry.url, entry.note), len(sources) + 1)
            mark = f" [{number}]"
        row = rows.setdefault((entry.task, entry.figure), {})
        # A model may have a figure from several sources.
        row[entry.model] = ", ".join(filter(None, [row.get(entry.model), _cell(entry) + mark]))
    lines = [f"- {run.name}: {run.title}" for run in runs] + [""]
    lines += ["| " + " | ".join(["task", "figure", *models]) + " |"]
    lines += ["|" + "---|" * (len(models) + 2)]
    for key, row in rows.items():
        lines.append("| " + " | ".join([*key, *(row.get(model, "") for model in models)]) + " |")
    if sources:
        lines.append("")
    for (title, url, note), number in sources.items():
        lines.append(f"[{number}] {title}, <{url}>" + (f" ({note})" if note else ""))
    return "\n".join(lines) + "\n"


def _cell(entry: Entry) -> str:
    if entry.value is None:
        return "-"
    return f"{entry.value:.1f}" + (f" ({entry.delta:+.1f})" if entry.delta is not None else "")


def _csv(_: Sequence[Run], entries: Sequence[Entry]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Entry.__slots__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return out.getvalue()


def _json(runs: Sequence[Run], entries: Sequence[Entry]) -> str:
    table: dict[str, Any] = {
        "runs": {run.name: run.title for run in runs},
        "figures": [asdict(entry) for entry in entries],
    }
    return json.dumps(table) + "\n"


FORMATS: Final = {"md": _markdown, "csv": _csv, "json": _json}
"""Writers of the whole table, by the name of the format."""
