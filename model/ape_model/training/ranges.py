"""Checks of the numbers in a recipe: the message names the key, its range and what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_above_0", "check_at_least", "check_one_of", "check_rising", "check_share"]


def check_at_least(config: object, least: float, *names: str) -> None:
    """Check that these fields are at least so much.

    Raises:
        ValueError: one of them is not, or is NaN.
    """
    for name in names:
        if not (value := getattr(config, name)) >= least:
            raise ValueError(f"{name} is {value}: it must be at least {least:g}")


def check_above_0(config: object, *names: str) -> None:
    """Check that these fields are above 0.

    Raises:
        ValueError: one of them is not, or is NaN.
    """
    for name in names:
        if not (value := getattr(config, name)) > 0:
            raise ValueError(f"{name} is {value}: it must be above 0")


def check_share(config: object, *names: str, above_0: bool = False, below_1: bool = False) -> None:
    """Check that these fields are within 0..1.

    Args:
        config: Has the fields.
        names: Of the fields.
        above_0: Refuse 0 as well.
        below_1: Refuse 1 as well.

    Raises:
        ValueError: one of them is not, or is NaN.
    """
    bounds = [*(["above 0"] if above_0 else []), *(["below 1"] if below_1 else [])]
    wanted = " and ".join(["within 0..1", *bounds])
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (above_0 and value == 0) or (below_1 and value == 1):
            raise ValueError(f"{name} is {value}: it must be {wanted}")


def check_rising(config: object, *names: str) -> None:
    """Check that these fields are ranges above 0, the smaller number first.

    Raises:
        ValueError: one of them is not.
    """
    for name in names:
        low, high = getattr(config, name)
        if not 0 < low <= high:
            raise ValueError(f"{name} is {[low, high]}: it must be a range above 0, smallest first")


def check_one_of(config: object, name: str, choices: Iterable[str]) -> None:
    """Check that a field is one of these texts.

    Raises:
        ValueError: it is none of them.
    """
    known = tuple(choices)
    if (value := getattr(config, name)) not in known:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(known)}")
