"""Tables are read strictly: a dataclass is the schema, a mistake is one line that helps."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest

from ape_stream.errors import ConfigError, PromptError
from ape_stream.tables import read_size, read_table, read_value


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Table:
    name: str
    scale: float = 1.0
    colour: Colour | None = None
    mode: Literal["fast", "exact"] = "exact"
    size: tuple[int, int] = (1, 1)
    points: tuple[Point, ...] = ()
    on: bool = True
    either: float | str = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.scale < 0:
            raise ValueError("scale is below 0")


def test_values_take_the_types_of_the_fields():
    given = {
        "name": "a",
        "scale": 2,
        "colour": "red",
        "mode": "fast",
        "size": [3, 4],
        "points": [{"x": 1}, {"x": 2, "y": 5}],
        "either": "b",
    }
    table = read_table(Table, given, "t")
    points = (Point(1), Point(2, 5))
    assert table == Table("a", 2.0, Colour.RED, "fast", (3, 4), points, on=True, either="b")
    assert isinstance(table.scale, float)


def test_null_is_absent_where_a_field_may_be_none():
    assert read_table(Table, {"name": "a", "colour": None}, "t").colour is None
    with pytest.raises(ConfigError, match="'scale' in t must be a number, got None"):
        read_table(Table, {"name": "a", "scale": None}, "t")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nmae": 1}, "unknown key 'nmae' in t; it has: name, scale, colour, mode, size, points"),
        ({"name": 3}, "'name' in t must be a text, got 3"),
        ({"scale": True}, "'scale' in t must be a number, got True"),
        ({"scale": "2"}, "'scale' in t must be a number, got '2'"),
        ({"on": 1}, "'on' in t must be true or false, got 1"),
        ({"colour": "green"}, "'colour' in t must be one of 'red', 'blue', got 'green'"),
        ({"colour": []}, r"'colour' in t must be one of 'red', 'blue', got \[\]"),
        ({"mode": "slow"}, "'mode' in t must be one of 'fast', 'exact', got 'slow'"),
        ({"size": [1]}, "'size' in t must be a list of 2 values"),
        ({"size": [1, 2.5]}, r"'size' in t\[1\] must be a whole number, got 2.5"),
        ({"size": 3}, "'size' in t must be a list, got 3"),
        ({"points": [{"y": 1}]}, r"'points' in t\[0\] needs 'x'"),
        ({"points": [{"x": 1, "z": 2}]}, r"unknown key 'z' in 'points' in t\[0\]; it has: x, y"),
        ({"either": []}, r"'either' in t must be a number or a text, got \[\]"),
        ({"extra": 3}, "'extra' in t must be a table, got 3"),
        ({"scale": -1}, "t: scale is below 0"),
    ],
)
def test_a_mistake_names_the_key_and_what_is_possible(change, says):
    with pytest.raises(ConfigError, match=f"^{says}"):
        read_table(Table, {"name": "a", **change}, "t")


def test_what_is_required_is_named():
    with pytest.raises(ConfigError, match=r"^t needs 'name'$"):
        read_table(Table, {}, "t")


@pytest.mark.parametrize("given", [3, None, ["a"], "a"])
def test_what_is_no_table_is_refused(given):
    with pytest.raises(ConfigError, match=r"^t must be a table, got"):
        read_table(Table, given, "t")


def test_a_text_may_stand_for_a_table():
    assert read_table(Table, "a", "t", short="name") == Table("a")
    with pytest.raises(ConfigError, match=r"^t must be a text or a table, got 3"):
        read_table(Table, 3, "t", short="name")


def test_other_keys_may_go_to_one_field():
    table = read_table(Table, {"name": "a", "crf": 20, "extra": 1}, "t", rest="extra")
    assert table == Table("a", extra={"crf": 20, "extra": 1})


def test_the_error_is_of_the_callers_choice():
    with pytest.raises(PromptError):
        read_table(Table, {}, "t", error=PromptError)


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(ConfigError) as caught:
        read_table(Table, {"name": ["x" * 10_000]}, "t")
    assert len(str(caught.value)) < 200


def test_unknown_annotations_take_everything():
    assert read_value([1], set[int], "v") == [1]
    assert read_value([1], list[int], "v") == [1]
    with pytest.raises(ConfigError, match=r"v\[0\] must be a whole number"):
        read_value(["a"], list[int], "v")


def test_a_size_is_read_as_height_and_width():
    assert read_size("320x240", "--size") == (240, 320)
    assert read_size("1X2", "--size") == (2, 1)


@pytest.mark.parametrize("text", ["", "320", "x", "320x", "ax9", "0x5", "-1x5", "1x2x3", "²x2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="--size is WIDTHxHEIGHT in pixels, such as 320x240"):
        read_size(text, "--size")
