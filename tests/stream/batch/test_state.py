"""How a job stands: the time that is left."""

import pytest

from ape_stream.batch.state import Rate, time_left


@pytest.mark.parametrize(
    ("finding", "writing", "left"),
    [
        (8.0, 3.0, 8.0),
        (3.0, 8.0, 8.0),
        (0.0, 8.0, 8.0),
        (0.0, 0.0, 0.0),
        (8.0, None, 8.0),
        (0.0, None, None),  # all is found, and how long writing takes is not known: not 0
        (None, 3.0, None),
        (None, None, None),
    ],
)
def test_finding_and_writing_go_on_at_once(finding, writing, left):
    assert time_left(finding, writing) == left


def test_a_rate_needs_a_frame(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rate = Rate()
    assert rate.time_for(0) == 0.0
    assert rate.time_for(5) is None
    rate.start()
    now[0] += 2.0
    rate.add(10)
    assert rate.time_for(20) == pytest.approx(4.0)
