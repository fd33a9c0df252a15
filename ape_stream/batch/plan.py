"""The plan of a job: everything that its results depend on, written before the work begins.

A plan has three parts. `find` is what the shards depend on: prompts, model and weights, the choice
of frames. `write` is what the final files depend on beyond that: tracker, formats. `clips` are the
sources, by relative path and digest. Nothing in it names a machine, a time or an absolute path, so
a copy of the output folder goes on elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.clips import Clip
from ape_stream.batch.folder import json_bytes
from ape_stream.batch.shards import write_whole
from ape_stream.errors import ConfigError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["ClipChanges", "Plan", "changes_of_clips", "differences", "load_plan"]

_FORMAT: Final = 1
"""Of plan.json; another one is refused."""
_SHOWN: Final = 10
"""Differences, or clips, that a message lists."""
_VALUE_CHARS: Final = 60
"""Of a value in a message."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job does."""

    find: Mapping[str, Any]
    """What the shards depend on."""
    write: Mapping[str, Any]
    """What the final files depend on beyond that."""
    clips: tuple[Clip, ...]
    """The sources."""

    @property
    def write_digest(self) -> str:
        """Of all but the clips: final files written under another digest are written again."""
        return hashlib.sha256(json_bytes([self.find, self.write])).hexdigest()

    def save(self, path: Path) -> None:
        """Write the plan.

        Raises:
            SinkError: it cannot be written.
        """
        table = {
            "format": _FORMAT,
            "find": self.find,
            "write": self.write,
            "clips": [asdict(clip) for clip in self.clips],
        }
        write_whole(path, json_bytes(table, indent=1))


def load_plan(path: Path) -> Plan | None:
    """Read the plan of an output folder; None where there is none.

    Raises:
        ConfigError: it cannot be read as a plan.
    """
    if not path.exists():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != _FORMAT:
            raise ConfigError(f"{path} was written by another version: give another --out-dir")
        clips = tuple(read_table(Clip, item, "a clip") for item in table["clips"])
        return Plan(table["find"], table["write"], clips)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is no plan of a job ({error}): give another --out-dir"
        ) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two parts of plans, a line for each value, at most ten."""
    lines = [*_changed(old, new, "")]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return lines[:_SHOWN] + more


def _changed(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _changed(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, (list, tuple)):
        yield from _changed_list(old, json.loads(json_bytes(new)), where)
    # Through JSON, as the old one came: there a tuple is a list.
    elif json_bytes(old) != json_bytes(new):
        yield f"{where}: {_short(old)} then, {_short(new)} now"


def _changed_list(old: list[Any], new: list[Any], where: str) -> Iterator[str]:
    """Of long lists only what is not in both: one word of many prompts."""
    gone = [_shown(item) for item in old if item not in new]
    came = [_shown(item) for item in new if item not in old]
    if gone and came:
        yield f"{where}: {_short(gone)} then, {_short(came)} now"
    elif gone or came:
        yield f"{where}: with {_short(gone)} then" if gone else f"{where}: with {_short(came)} now"
    elif old != new:
        yield f"{where}: in another order"


def _shown(item: Any) -> Any:
    """A prompt by its text where it has nothing else."""
    if not isinstance(item, dict):
        return item
    said = {key: value for key, value in item.items() if value is not None and value is not False}
    return said["text"] if [*said] == ["text"] else said


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}..."


@dataclass(frozen=True, slots=True)
class ClipChanges:
    """How the clips of a plan differ from those of an older one, by their names."""

    added: tuple[str, ...]
    """Were not there."""
    missing: tuple[str, ...]
    """Are no longer there."""
    changed: tuple[str, ...]
    """Have another content or path."""

    def lines(self) -> list[str]:
        """A line for each kind of change that there is."""
        kinds = {"new": self.added, "missing": self.missing, "changed": self.changed}
        return [f"{kind}: {_names(names)}" for kind, names in kinds.items() if names]


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def changes_of_clips(old: Plan, new: Plan) -> ClipChanges:
    """Compare the clips of two plans."""
    before = {clip.name: clip for clip in old.clips}
    now = {clip.name: clip for clip in new.clips}
    return ClipChanges(
        added=tuple(name for name in now if name not in before),
        missing=tuple(name for name in before if name not in now),
        changed=tuple(name for name in now if name in before and before[name] != now[name]),
    )
