"""Numbers of a recipe that are out of their range, at the edges and where there is no number."""

import math
from dataclasses import dataclass

import pytest

from ape_model.training.ranges import (
    check_above_0,
    check_at_least,
    check_one_of,
    check_rising,
    check_share,
)


@dataclass
class Config:
    x: object


def refused(check):
    try:
        check()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("check", "more", "good", "bad"),
    [
        (lambda config: check_at_least(config, 2, "x"), "at least 2", [2, 9], [1.9, math.nan]),
        (lambda config: check_above_0(config, "x"), "above 0", [1e-9], [0, -1, math.nan]),
        (lambda config: check_share(config, "x"), "within 0..1", [0, 1], [-0.1, 1.1, math.nan]),
        (lambda config: check_share(config, "x", above_0=True), "and above 0", [0.1, 1], [0]),
        (lambda config: check_share(config, "x", below_1=True), "and below 1", [0, 0.9], [1]),
        (
            lambda config: check_share(config, "x", above_0=True, below_1=True),
            "within 0..1 and above 0 and below 1",
            [0.5],
            [0, 1],
        ),
        (
            lambda config: check_rising(config, "x"),
            "a range above 0, smallest first",
            [(1, 1), (1, 2)],
            [(0, 1), (2, 1), (math.nan, 1)],
        ),
        (lambda config: check_one_of(config, "x", "ab"), "one of a, b", ["a"], ["c", ""]),
    ],
)
def test_edges(check, more, good, bad):
    for value in good:
        check(Config(value))
    for value in bad:
        message = refused(lambda value=value: check(Config(value)))
        assert message is not None, value
        assert message.startswith("x is ")
        assert message.endswith(more)
