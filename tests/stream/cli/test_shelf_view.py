"""What is seen of a job: bars on a terminal, lines in a log, JSON for machines."""

import io
import json

from rich.console import Console

from ape_stream.annotation.summary import table_of
from ape_stream.batch.clips import Clip
from ape_stream.batch.state import ClipState, Progress
from ape_stream.cli import shelf_view
from ape_stream.cli.console import error_console
from ape_stream.cli.shelf_view import Bars, JsonLines, Lines


def states():
    done = ClipState(Clip("a", "a.mp4", 1, "x"), "done", 50, 50)
    done.found = {"frames": 50, "problem": None, "counts": {"cup": 7, "dog": 0}}
    failed = ClipState(Clip("b", "b.mp4", 1, "y"), "failed")
    failed.attempts = [{"during": "find", "reason": "it is no video", "final": True}]
    return [done, failed, ClipState(Clip("c", "c.mp4", 1, "z"), "finding", 100, 25)]


def standing(**more):
    values = {"found_hz": 12.5, "left_s": 75.0, "frames": 75, "expected": 150, "loading": False}
    return Progress(clips=states(), counts={"cup": 7, "dog": 0}, **{**values, **more})


def test_a_terminal_has_a_bar_for_all_and_one_for_each_clip_at_work():
    shown = io.StringIO()
    with Bars(Console(file=shown, force_terminal=True, width=160)) as view:
        view.progress(standing())
        view.clip(states()[1])
        view.note("a line")
    text = shown.getvalue()
    for part in ("2/3 clips, 1 failed", "75/150 frames, 12.5 frames/s, 1:15 left; 7 cup", "  c"):
        assert part in text
    assert "failed: b.mp4: it is no video" in text
    assert "a line" in text


def test_names_are_shown_as_they_are(capsys):
    console = error_console()
    with Bars(console) as view:
        view.note("failed: [b]:m:.mp4")
    counts = {"[red]:dog:": 1}
    words = {text: {"regions": 1} for text in counts}
    clip = {"clip": "a:m:[i]", "frames": 1, "counts": counts, "tracks": counts, "problem": None}
    console.print(table_of({"words": words, "clips": [clip]}))
    shown = capsys.readouterr().err
    for name in ("[b]:m:.mp4", "[red]:dog:", "a:m:[i]"):
        assert name in shown


def test_a_log_has_lines(capsys, monkeypatch):
    monkeypatch.setattr(shelf_view, "_LINE_EVERY_S", 0)
    view = Lines()
    view.progress(standing(left_s=None, expected=None))
    view.progress(standing(loading=True))
    view.clip(states()[1])
    monkeypatch.setattr(shelf_view, "_LINE_EVERY_S", 100)
    view.progress(standing(frames=149))
    view.progress(standing(frames=150, left_s=None))
    view.close()
    assert capsys.readouterr().err.splitlines() == [
        "2/3 clips, 1 failed, 75 frames, 12.5 frames/s; 7 cup",
        "2/3 clips, 1 failed, loading the model",
        "failed: b.mp4: it is no video",
        "2/3 clips, 1 failed, 150/150 frames, 12.5 frames/s; 7 cup",
    ]


def test_a_short_job_needs_no_lines(capsys):
    with Lines() as view:
        view.progress(standing())
    assert not capsys.readouterr().err


def test_machines_have_json(capsys, monkeypatch):
    monkeypatch.setattr(shelf_view, "_LINE_EVERY_S", 0)
    view = JsonLines()
    view.progress(standing())
    view.clip(states()[0])
    progress, clip = map(json.loads, capsys.readouterr().out.splitlines())
    assert progress["frames_per_s"] == 12.5
    assert (progress["clips_over"], progress["clips_failed"], progress["left_s"]) == (2, 1, 75.0)
    assert (clip["event"], clip["clip"], clip["counts"]) == ("clip", "a", {"cup": 7, "dog": 0})
