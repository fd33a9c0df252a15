"""What the benchmarks of the transports share."""

import itertools
import json
from dataclasses import dataclass

from ape_nodes.benchmarks import report


@dataclass
class Line:
    form: str
    ms: float


COLUMNS = {"form": lambda line: line.form, "ms": lambda line: f"{line.ms:.1f}"}


def endless(capsys, seen):
    """Lines, and what was printed when the next one was asked for."""
    for k in itertools.count():
        seen.append(capsys.readouterr().out)
        if k == 3:
            raise KeyboardInterrupt
        yield Line("x" * k, k / 2)


def test_each_measurement_is_printed_before_the_next_begins(capsys):
    for as_json, first in ((True, ""), (False, "form")):
        seen = []
        try:
            report(endless(capsys, seen), COLUMNS, as_json=as_json)
        except KeyboardInterrupt:
            assert len(seen) == 4
        assert seen[0] == ""
        assert seen[1].startswith(first)
        assert seen[2].count("\n") == 1


def test_a_line_of_json_has_what_was_measured(capsys):
    report([Line("one", 1.23456)], COLUMNS, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"form": "one", "ms": 1.23456}


def test_the_columns_of_a_table_stand_below_their_titles(capsys):
    report([Line("one", 1.25), Line("another", 100.0)], COLUMNS, as_json=False, first=10)
    assert capsys.readouterr().out.splitlines() == [
        "form               ms",
        "one               1.2",
        "another         100.0",
    ]
