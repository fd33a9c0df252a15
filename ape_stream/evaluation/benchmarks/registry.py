"""All tasks: the tables of `data/tasks`, each for one family of them.

A table has the fields of `Task` for all `keys`, and `[each.KEY]` for what is different in one.
`{key}` and the texts of `[each.KEY]` that are no field, such as `{folder}`, are put into texts.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import UsageError
from ape_stream.evaluation.benchmarks.task import Task
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["all_tasks", "class_list", "groups", "select_tasks"]

_DATA: Final = files("ape_stream.evaluation.benchmarks").joinpath("data")


@cache
def all_tasks() -> Mapping[str, Task]:
    """Every task by its name."""
    tables = sorted(_DATA.joinpath("tasks").iterdir(), key=lambda file: file.name)
    found = [
        task
        for table in tables
        for task in _family(tomllib.loads(table.read_text(encoding="utf-8")), table.name)
    ]
    return {task.name: task for task in found}


def _family(table: dict[str, Any], where: str) -> Iterator[Task]:
    keys, each = table.pop("keys"), table.pop("each", {})
    known = {field.name for field in fields(Task)}
    for key in keys:
        own = each.get(key, {})
        texts = {"key": key} | {name: own[name] for name in own if name not in known}
        own = {name: value for name, value in own.items() if name in known}
        task = read_table(Task, _filled(_merged(table, own), texts), f"{where}: {key}")
        # An empty path takes one of the family away.
        paths = {name: path for name, path in task.paths.items() if path}
        yield read_table(Task, _values(task) | {"paths": paths}, f"{where}: {key}")


def _values(task: Task) -> dict[str, Any]:
    return {field.name: getattr(task, field.name) for field in fields(task)}


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables, the own values first; tables inside are merged in the same way."""
    both = dict(common)
    for key, value in own.items():
        inner = both.get(key)
        both[key] = _merged(inner, value) if isinstance(inner, Mapping) else value
    return both


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    """The value with `{name}` replaced in all of its texts."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, texts) for key, inner in value.items()}
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(f"{{{name}}}", text)
    return value


def groups() -> dict[str, list[str]]:
    """The names of the tasks of each group."""
    members: dict[str, list[str]] = {}
    for task in all_tasks().values():
        for group in task.groups:
            members.setdefault(group, []).append(task.name)
    return dict(sorted(members.items()))


def select_tasks(wanted: Sequence[str]) -> list[Task]:
    """Tasks by names, groups and patterns, each once, in the order of their names' list.

    Args:
        wanted: Such as "lvis/val", "rf100", "seginw/*"; "all" or nothing for every task.

    Raises:
        UsageError: a name stands for no task; the message names the nearest ones.
    """
    tasks, members = all_tasks(), groups()
    chosen: dict[str, Task] = {}
    for one in wanted or ["all"]:
        found = members.get(one, []) if one != "all" else list(tasks)
        found = found or [name for name in tasks if fnmatchcase(name, one)]
        if not found:
            near = difflib.get_close_matches(one, [*tasks, *members], 3, 0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"no task and no group is called {one!r}{hint} (ape-stream eval list)")
        chosen |= {name: tasks[name] for name in found}
    return list(chosen.values())


@cache
def class_list(name: str) -> tuple[tuple[int, str], ...]:
    """A list of `data/classes`: number and name of each class.

    The number is what the data set calls the class in its own files; without one in the list it is
    the position from 0.
    """
    text = _DATA.joinpath("classes", f"{name}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    rows = [line.split("\t") for line in lines]
    return tuple(
        (int(row[0]), row[1]) if len(row) == 2 else (position, row[0])
        for position, row in enumerate(rows)
    )
