"""An RTSP camera that dies and comes back, or stands still, served by GStreamer."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import number_of

from ape_stream.sources.video import VideoSource

PYTHON = Path("/usr/bin/python3")
CAMERA = Path(__file__).parent / "rtsp_camera.py"


def gstreamer():
    """Whether the system's Python has GStreamer's RTSP server."""
    wanted = "import gi; gi.require_version('GstRtspServer', '1.0')"
    return (
        PYTHON.exists()
        and not subprocess.run([PYTHON, "-c", wanted], check=False, stderr=-3).returncode
    )


pytestmark = pytest.mark.skipif(
    not gstreamer(), reason="needs Debian's gir1.2-gst-rtsp-server-1.0 and python3-gst-1.0"
)


class Server:
    """The camera's process, and when it gave out each number."""

    def __init__(self, port, sent, first=0):
        self.process = subprocess.Popen(
            [PYTHON, CAMERA, str(port), str(first)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._sent = sent
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            number, at_s = line.split()
            self._sent[int(number)] = float(at_s)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_camera_that_was_away_is_back_fresh_and_its_time_went_on(how):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sent, servers = {}, []
    servers.append(Server(port, sent))

    def trouble():
        time.sleep(1.5)
        if how == "killed":
            servers[0].kill()
            time.sleep(1.0)
            servers.append(Server(port, sent, first=100))
        else:
            servers[0].process.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            servers[0].process.send_signal(signal.SIGCONT)

    rows = []
    url = f"rtsp://127.0.0.1:{port}/cam"
    breaker = threading.Thread(target=trouble)
    try:
        with VideoSource(url, read_timeout_s=1.0, wait_s=10) as source:
            breaker.start()
            for frame in source:
                rows.append((number_of(frame.image), frame.time_s, time.monotonic()))
                gap = np.flatnonzero(np.diff([row[2] for row in rows]) > 0.7)
                if gap.size and len(rows) - gap[0] > 30:
                    break
    finally:
        breaker.join()
        for server in servers:
            server.kill()
    numbers, times, moments = (np.array(column) for column in zip(*rows, strict=True))
    assert (np.diff(times) > 0).all()
    assert len(set(numbers.tolist())) == len(rows)
    back = gap[0] + 1
    ages = moments - np.array([sent[number] for number in numbers])
    assert ages[back] < 0.5
    passed_s = sent[numbers[back]] - sent[numbers[back - 1]]
    assert times[back] - times[back - 1] == pytest.approx(passed_s, abs=0.25)
