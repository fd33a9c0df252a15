"""`ape-stream eval table`: scores of several folders, and published figures with sources."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from ape_stream.errors import ConfigError
from ape_stream.evaluation.benchmarks.compare import read_run
from ape_stream.evaluation.command import app


@pytest.fixture
def runs(tmp_path):
    figures = {"box/AP": 60.6, "mask/AP": None}
    write(tmp_path / "ours", {"lvis/val": figures}, {"odinw13": {"box/AP mean": 50.0}})
    write(tmp_path / "older", {"lvis/val": {"box/AP": 58.1}}, {}, limit=20)
    return tmp_path


def write(folder, tasks, suites, limit=None):
    folder.mkdir()
    parts = [{name: {"figures": one} for name, one in some.items()} for some in (tasks, suites)]
    table = {"model": "D", "profile": "honest", "limit": limit}
    table |= dict(zip(("tasks", "suites"), parts, strict=True))
    (folder / "scores.json").write_text(json.dumps(table))


def shown(folder, *options):
    folders = [str(folder / "ours"), str(folder / "older")]
    result = CliRunner().invoke(app, ["table", *folders, *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_runs_and_published_figures_stand_side_by_side(runs):
    lines = shown(runs, "--published").splitlines()
    assert lines[:2] == [
        "- ours: D, honest",
        "- older: D, honest, NOT REAL: at most 20 images of a task",
    ]
    names = lines[3].strip("| ").split(" | ")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[5:8]]
    box = dict(zip(names, rows[0], strict=True))
    assert (box["task"], box["figure"], box["ours"]) == ("lvis/val", "box/AP", "60.6")
    assert box["older"] == "58.1 (+2.5)"  # ours is so much higher
    assert box["APE-L_D"] == "59.6 (+1.0) [1]"
    assert rows[1][2:4] == ["-", ""]  # nothing to judge; no such figure
    assert dict(zip(names, rows[2], strict=True))["GLIP-L"].startswith("51.2 (-1.2)")
    sources = [line for line in lines if line.startswith("[1] ")]
    assert "https://github.com/facebookresearch/sam3" in sources[0]
    assert "quoted there from the paper of APE" in sources[0]


def test_other_formats_hold_the_same(runs):
    rows = list(csv.DictReader(io.StringIO(shown(runs, "--format", "csv", "--published"))))
    table = json.loads(shown(runs, "--json", "--published"))
    assert table["runs"]["ours"] == "D, honest"
    assert len(rows) == len(table["figures"])
    for row, entry in zip(rows, table["figures"], strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in entry.items()}
    assert {row["model"] for row in rows if row["source"] == ""} == {"ours", "older"}
    assert all(row["url"].startswith("https://") for row in rows if row["source"])
    assert "APE-L_D" not in shown(runs)


@pytest.mark.parametrize("text", ["", "[]", '{"tasks": {}}', "not json"])
def test_scores_that_cannot_be_read(tmp_path, text):
    with pytest.raises(ConfigError, match=r"has no scores\.json: run 'ape-stream eval score'"):
        read_run(tmp_path)
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot read the scores of"):
        read_run(tmp_path)
