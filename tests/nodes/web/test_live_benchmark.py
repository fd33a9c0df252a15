"""The benchmark measures what it says."""

import pytest

from ape_nodes.web.bench import report, viewers


@pytest.mark.slow  # a process of its own, and six ways to look
def test_every_way_to_look_is_measured(monkeypatch):
    monkeypatch.setattr(viewers, "WARM_S", 0.5)
    measured = viewers.measure(0.3, 20.0, (108, 192))
    lines = measured.lines
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
