"""Ray's actors make the same files as child processes; skipped where Ray is not installed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "annotation"))
from shelves import annotate, final_files, lines_of, write


@pytest.mark.slow
def test_actors_make_the_same_files_and_survive_a_clip_that_kills_them(folder):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ape-stream[ray]'")
    write(folder / "in" / "a.mp4", frames=300)
    write(folder / "in" / "b.mp4", frames=20)
    assert annotate("in", out="plain") == 0
    assert annotate("in", "--engine", "ray", "--actors", "2") == 0
    assert final_files("out") == final_files("plain")
    assert annotate("fake://3/exits", "in", "--engine", "ray", out="poisoned") == 3
    (failed,) = lines_of("poisoned/failed.jsonl")
    assert (failed["clip"], failed["attempts"]) == ("3-exits", 3)


def test_without_ray_the_extra_is_named(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4", "--engine", "ray") == 2
    assert "pip install 'ape-stream[ray]'" in capsys.readouterr().err
