"""Perceivers and a tracker that the node's tests name as plugins."""

import threading

from ape_stream.errors import ModelError
from ape_stream.pipeline.shared_perceiver import WARM_UP
from ape_stream.testing import OraclePerceiver
from ape_stream.trackers.iou import IouTracker

GATE = threading.Event()
"""`Held` answers once it is set."""
HOLDING = threading.Event()
"""Set once `Held` was asked."""


class Held(OraclePerceiver):
    def __init__(self):
        super().__init__()

    def perceive(self, frames):
        if frames[0].stream == WARM_UP:
            return super().perceive(frames)
        HOLDING.set()
        GATE.wait(20)
        return super().perceive(frames)


class Failing(OraclePerceiver):
    def __init__(self):
        super().__init__()

    def perceive(self, frames):
        if frames[0].stream == WARM_UP:
            return super().perceive(frames)
        raise ValueError("the network fell over")


class Halved(OraclePerceiver):
    def __init__(self, *, dtype="float32", canvas=None):
        super().__init__()
        self.dtype, self.canvas = dtype, canvas


class Absent:
    def __init__(self):
        raise ModelError("no model is called that")


class Buggy:
    def __init__(self):
        raise ZeroDivisionError("a mistake")


class RecordingTracker(IouTracker):
    options = None

    def __init__(self, *, min_iou=0.3):
        super().__init__(min_iou=min_iou)
        RecordingTracker.options = {"min_iou": min_iou}


NAMES = ("Held", "Failing", "Halved", "Absent", "Buggy")
