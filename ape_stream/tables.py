"""Read tables of TOML, JSON and keyword options strictly: fields and types must fit.

A dataclass is the schema. Its field names are the only keys, its annotations the types, fields
without a default are required. A mistake gives one line that names the key and what is possible:

    unknown key 'treshold' in a prompt; it has: text, kind, stuff, threshold
    'stuff' in a prompt must be true or false, got 'yes'

This module imports nothing but `ape_stream.errors`, so that every package may use it
(decisions/0006).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ape_stream.errors import ConfigError

__all__ = ["describe", "read_size", "read_table", "read_value"]

T = TypeVar("T")

_NAMES: dict[Any, str] = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "a text",
    dict: "a table",
    list: "a list",
    NoneType: "absent",
}
"""Types in the words of TOML and JSON."""
_PLAIN = (int, str, float, bool)
"""Types whose values are taken as they are."""


def read_table(
    kind: type[T],
    given: object,
    where: str,
    *,
    short: str | None = None,
    rest: str | None = None,
    error: type[Exception] = ConfigError,
) -> T:
    """Make a dataclass from a table whose keys and types must be those of its fields.

    Args:
        kind: The dataclass. Annotations may be bool, int, float, str, an Enum, a Literal, another
            dataclass, a tuple or a Mapping, or a union of these; any other annotation takes every
            value.
        given: The table: a mapping with text keys.
        where: What the table is, for messages: "a prompt", "recipe.toml: stage 2".
        short: A text in place of a table stands for a table with this key alone.
        rest: Name of the field that takes all keys without a field of their own.
        error: Raised with a message of one line.

    Raises:
        ConfigError: (or `error`) a key is unknown or missing, or a value has the wrong type; or
            the dataclass refused the values with a ValueError.
    """
    if short is not None and isinstance(given, str):
        given = {short: given}
    if not isinstance(given, Mapping):
        wanted = "a table" if short is None else "a text or a table"
        raise error(f"{where} must be {wanted}, got {given!r:.80}")
    known, hints = _schema(cast("Any", kind))
    # With `rest`, the field's own name is no key: it would be an option like any other.
    own = {key: value for key, value in given.items() if key in known and key != rest}
    other = {key: value for key, value in given.items() if key not in own}
    _check_keys(known, own, other if rest is None else {}, where, error)
    values = {key: read_value(own[key], hints[key], f"{key!r} in {where}", error) for key in own}
    if rest is not None:
        values[rest] = other
    try:
        return kind(**values)
    except ValueError as problem:
        raise error(f"{where}: {problem}") from problem


@cache  # a file of records has thousands of tables of one kind
def _schema(kind: type[Any]) -> tuple[dict[str, Field[Any]], dict[str, Any]]:
    """The fields of a dataclass that tables may give, by name, and their annotations as types."""
    known = {field.name: field for field in fields(kind) if field.init}
    # Annotations are text in modules with `from __future__ import annotations`: make them types.
    return known, get_type_hints(kind)


def _check_keys(
    known: Mapping[str, Field[Any]],
    own: Mapping[str, Any],
    unknown: Mapping[str, Any],
    where: str,
    error: type[Exception],
) -> None:
    for key in unknown:
        raise error(f"unknown key {key!r} in {where}; it has: {', '.join(known)}")
    for key, field in known.items():
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if not optional and key not in own:
            raise error(f"{where} needs {key!r}")


def read_value(value: Any, hint: Any, what: str, error: type[Exception] = ConfigError) -> Any:
    """Check one value against an annotation and bring it to that type.

    A list becomes a tuple, a whole number a float and a text an Enum member, where the annotation
    says so.

    Args:
        value: What the user wrote.
        hint: The annotation as a type, not as text.
        what: What the value is, for the message.
        error: Raised with a message of one line.

    Raises:
        ConfigError: (or `error`) the value does not fit.
    """
    if type(value) is hint and hint in _PLAIN:  # most values are; all other checks cost more
        return value
    return _converted(value, hint, what, error)


def _converted(value: Any, hint: Any, what: str, error: type[Exception]) -> Any:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _read_union(value, get_args(hint), what, error)
    if isinstance(hint, type) and is_dataclass(hint):
        return read_table(hint, value, what, error=error)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _read_tuple(value, get_args(hint), what, error)
    if origin is list and isinstance(value, list):
        (item,) = get_args(hint)
        return [read_value(v, item, f"{what}[{k}]", error) for k, v in enumerate(value)]
    # By value, as users write it; a wrong one falls through to the message below.
    if isinstance(hint, type) and issubclass(hint, Enum) and value in [m.value for m in hint]:
        return hint(value)
    if not _fits(value, hint, origin):
        raise error(f"{what} must be {describe(hint)}, got {value!r:.80}")
    return float(value) if hint is float else value  # a whole number is a number


def _fits(value: Any, hint: Any, origin: Any) -> bool:
    """Whether a plain value is of this type; every value is, of a type that is not known here."""
    if origin is Literal:
        return value in get_args(hint)
    if origin in (tuple, list) or (isinstance(hint, type) and issubclass(hint, Enum)):
        return False
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint not in _NAMES:  # `Any`, or a class that tables cannot hold
        return True
    # bool is an int to Python, but `true` in place of a number is a mistake.
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float)) if hint is float else isinstance(value, hint)


def _read_union(value: Any, hints: tuple[Any, ...], what: str, error: type[Exception]) -> Any:
    if value is None and NoneType in hints:
        return None
    choices = [hint for hint in hints if hint is not NoneType]
    if len(choices) == 1:
        return read_value(value, choices[0], what, error)
    # The exact type first: 1 stays whole in `float | int`.
    for hint in sorted(choices, key=lambda hint: hint is not type(value)):
        try:
            return read_value(value, hint, what, error)
        except error:
            continue
    raise error(f"{what} must be {' or '.join(map(describe, choices))}, got {value!r:.80}")


def _read_tuple(
    value: list[Any] | tuple[Any, ...],
    hints: tuple[Any, ...],
    what: str,
    error: type[Exception],
) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is Ellipsis:  # tuple[X, ...]
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise error(f"{what} must be a list of {len(hints)} values, got {list(value)!r:.80}")
    pairs = enumerate(zip(value, hints, strict=True))
    return tuple(read_value(v, hint, f"{what}[{k}]", error) for k, (v, hint) in pairs)


def describe(hint: Any) -> str:
    """A type in the words of TOML and JSON: `int` is "a whole number"."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(describe(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    # In TOML a tuple is a list and a mapping a table.
    plain = {tuple: list, Mapping: dict}.get(origin, origin)
    if isinstance(hint, type) and is_dataclass(hint):
        plain = dict
    return _NAMES.get(plain or hint, str(hint))


def read_size(text: str, what: str, error: type[Exception] = ConfigError) -> tuple[int, int]:
    """Read a size that a user wrote as WIDTHxHEIGHT, in pixels.

    Args:
        text: Such as "320x240".
        what: What the size is, for the message.
        error: Raised with a message of one line.

    Returns:
        Height and width, each at least 1.

    Raises:
        ConfigError: (or `error`) it is no such text.
    """
    width, cross, height = text.lower().partition("x")
    if cross and all(side.isascii() and side.isdecimal() and int(side) for side in (width, height)):
        return int(height), int(width)
    raise error(f"{what} is WIDTHxHEIGHT in pixels, such as 320x240, not {text!r:.80}")
