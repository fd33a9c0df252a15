"""What was found in all clips: `summary.json`, and a table to read.

Nothing of when or where the job ran is in the files: they are the same however often it was killed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from ape_stream.batch.folder import json_bytes
from ape_stream.batch.shards import write_whole
from ape_stream.values.texts import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.batch.state import ClipState

__all__ = ["summary_of", "table_of", "write_summary"]

_ROWS: Final = 40
"""Clips in the table; a longer list is in the file."""
_WORDS: Final = 8
"""Columns of the table; the words after them share one."""


def summary_of(states: Sequence[ClipState], prompts: Sequence[str]) -> dict[str, Any]:
    """The summary as JSON values.

    Args:
        states: Every clip, each done or failed.
        prompts: The words, in order.
    """
    done = [state for state in states if state.found is not None]
    counts, tracks, clips_with = Counter[str](), Counter[str](), Counter[str]()
    for state in done:
        found = state.found or {}
        counts.update(found["counts"])
        tracks.update(found["tracks"])
        clips_with.update(text for text, count in found["counts"].items() if count)
    return {
        "clips": [_clip(state) for state in states],
        "words": {
            text: {"regions": counts[text], "tracks": tracks[text], "clips": clips_with[text]}
            for text in prompts
        },
        "frames": sum((state.found or {})["frames"] for state in done),
        "words_not_found": [text for text in prompts if not counts[text]],
        "clips_without": [
            state.clip.name for state in done if not any((state.found or {})["counts"].values())
        ],
        "failed": [state.clip.name for state in states if state.status == "failed"],
    }


def _clip(state: ClipState) -> dict[str, Any]:
    about = {"clip": state.clip.name, "source": state.clip.source, "status": state.status}
    return {**about, **(state.found or {"reason": state.reason})}


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json`.

    Raises:
        SinkError: it cannot be written.
    """
    write_whole(path, json_bytes(summary, indent=1))


def table_of(summary: dict[str, Any]) -> Table:
    """The summary as a table: clips down, frames and words across."""
    words = sorted(summary["words"], key=lambda text: -summary["words"][text]["regions"])
    shown = words[:_WORDS]
    table = Table("clip", "frames", *shown, *(["other words"] if words[_WORDS:] else []))
    for clip in summary["clips"][:_ROWS]:
        if "counts" not in clip:
            table.add_row(clip["clip"], "failed", style="red")
            continue
        counts = clip["counts"]
        other = [str(sum(counts[text] for text in words[_WORDS:]))] if words[_WORDS:] else []
        cells = [_cell(counts[text], clip["tracks"][text]) for text in shown]
        style = "yellow" if clip["problem"] or not any(counts.values()) else None
        table.add_row(clip["clip"], str(clip["frames"]), *cells, *other, style=style)
    if len(summary["clips"]) > _ROWS:
        table.add_row(f"and {len(summary['clips']) - _ROWS} more")
    return table


def _cell(regions: int, tracks: int) -> str:
    return f"{regions} ({counted(tracks, 'track')})" if regions else "-"
