"""What a live stream's log says of damage and outages: each once, and rarer the more there are."""

import itertools
import logging

import numpy as np
import pytest
from clips import jpeg
from servers import motion_jpeg, paced, web

from ape_stream.sources.video import VideoSource
from ape_stream.sources.video.faults import Faults


@pytest.fixture(name="lines")
def _lines(caplog):
    caplog.set_level(logging.WARNING, logger="ape_stream.sources.video.faults")
    return lambda: [record.getMessage() for record in caplog.records]


def test_faults_are_reported_at_the_first_second_fourth_and_eighth(lines):
    faults = Faults("rtsp://door")
    for _ in range(11):
        faults.note_damage()
    assert faults.damaged == 11
    assert lines() == [
        "rtsp://door: 1 damaged packet was left out",
        "rtsp://door: 2 damaged packets were left out",
        "rtsp://door: 4 damaged packets were left out",
        "rtsp://door: 8 damaged packets were left out",
    ]


def test_an_outage_is_one_however_many_attempts_fail(lines):
    faults = Faults("rtsp://door")
    for _ in range(3):
        faults.note_loss("no video for 5 s", heard_s=0.0, tried_s=60.0)
    faults.note_frame()
    faults.note_frame()
    assert faults.lost == 1
    first, second = lines()
    assert first == "rtsp://door: no video for 5 s; trying again for 60 s"
    assert second.startswith("rtsp://door: frames again after ")


def test_a_stream_names_its_damaged_packets_and_its_outages(lines):
    numbering = itertools.count()

    def parts():
        for _ in paced(np.arange(8) / 25):
            number = next(numbering)
            yield bytes(500) if number % 8 == 5 else jpeg(number)

    with web(motion_jpeg(parts)) as url, VideoSource(f"{url}/cam") as source:
        assert len(list(itertools.islice(source, 12))) == 12
    shown = lines()
    assert any(line.endswith("/cam: 1 damaged packet was left out") for line in shown)
    assert any("; trying again for 60 s" in line for line in shown)
    assert any("frames again after" in line for line in shown)
