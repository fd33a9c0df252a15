"""The benchmark measures what it says."""

import os
import threading
from pathlib import Path

import pytest
import typer

from ape_nodes.web.bench import report, screen, soak, viewers
from ape_nodes.web.bench.measured import Line, Measured, mean
from ape_stream.errors import ApeStreamError, UsageError


@pytest.mark.slow  # a process of its own, and six ways to look
def test_every_way_to_look_is_measured(monkeypatch):
    monkeypatch.setattr(viewers, "WARM_S", 0.5)
    came = []
    measured = Measured(came.append)
    viewers.measure(measured, 0.8, 20.0, (108, 192))
    lines = measured.lines
    assert came == lines
    assert [line.form for line in lines] == [
        "nobody",
        *("jpeg, encoding alone", "jpeg, 1 of 720p", "jpeg, 4 of 720p"),
        *("h264, encoding alone", "h264, 1 of 720p", "h264, 4 of 720p"),
        "jpeg, 1, one at 1 MB/s, one stopped",
        "recorded 1080p frame: drawing, conversion",
    ]
    assert all(line.cpu_ms > 0 for line in lines)
    looked = [line for line in lines if " of 720p" in line.form or "stopped" in line.form]
    assert all(line.fps > 0 and line.age_ms_p50 <= line.age_ms_p95 for line in looked)
    assert measured.known_ms > 0
    assert measured.lost >= 0
    assert measured.shown == []
    assert len(report.bars(measured, 20.0)) == 10


def test_what_was_measured_before_the_page_failed_is_printed(monkeypatch, capsys):
    def measure(measured, *_, **__):
        measured.add(Line("jpeg, 1 of 720p", 6.0, 4.0, 30.0))
        typer.echo("--")  # it was printed before this
        measured.add(Line("jpeg, 4 of 720p", 6.6, 4.0, 30.0))
        raise ApeStreamError("the page has drawn no new image for 60 s")

    monkeypatch.setattr(report, "measure", measure)
    monkeypatch.setattr(screen, "browser", lambda: "chromium")
    for as_json in (False, True):
        with pytest.raises(ApeStreamError, match="no new image"):
            report.live(seconds=1.0, fps=30.0, as_json=as_json)
        before, _, after = capsys.readouterr().out.partition("--\n")
        assert "jpeg, 1 of 720p" in before
        assert "jpeg, 4 of 720p" in after
        assert "the same, times one viewer" in after
        assert "load" in after


def test_two_turns_are_one_line():
    one = Line("jpeg", 4.0, 3.0, 30.0, 5.0, 7.0, 100.0)
    other = Line("jpeg", 6.0, 4.0, 28.0, 7.0, 9.0, 110.0)
    assert mean(one, other) == Line("jpeg", 5.0, 3.5, 28.0, 6.0, 8.0, 105.0)
    assert mean(Line("nobody", 1.0), Line("nobody", 2.0)) == Line("nobody", 1.5)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="of Linux")
def test_a_process_holds_what_it_was_given(tmp_path):
    before = soak.held(os.getpid())
    over = threading.Event()
    waiting = threading.Thread(target=over.wait)
    waiting.start()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        filled = b"1" * 50_000_000
        after = soak.held(os.getpid())
    over.set()
    waiting.join()
    assert after.threads == before.threads + 1
    assert after.descriptors == before.descriptors + 2
    assert after.resident_mb > before.resident_mb + len(filled) / 2e6
    assert after.cpu_s >= before.cpu_s > 0
    assert after.waited_s >= 0


def test_without_a_browser_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(screen, "browser", lambda: None)
    with pytest.raises(UsageError, match="chromium"):
        soak.live(seconds=1.0, fps=30.0, as_json=False)
