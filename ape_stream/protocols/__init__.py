"""The shapes that plugins have: nothing needs to be inherited, any object of the shape will do.

source     Source, and what it may also offer: its length, its rate, leaving frames out
perceiver  Perceiver, and what it may also offer: maps, ranks, its threshold, memory, weights
tracker    Tracker
sink       Sink, and what it may also ask for: maps, frames, statistics, the run itself
resource   what sources and sinks have in common
queries    GivesQueries, a perceiver whose frames can be indexed
worlds     World, for synthetic images and videos with their truth
"""

from ape_stream.protocols.perceiver import (
    EmbedsTexts,
    KnowsWeights,
    PaintsMaps,
    Perceiver,
    RanksRegions,
    ReportsMemory,
    ReportsThreshold,
)
from ape_stream.protocols.queries import GivesQueries
from ape_stream.protocols.resource import ChecksItself
from ape_stream.protocols.sink import (
    ControlsRun,
    EndsRun,
    NeedsMaps,
    RunControl,
    SeesFrames,
    Sink,
    WatchesRun,
    WritesFiles,
)
from ape_stream.protocols.source import KnowsFrameCount, KnowsRate, ReadsFiles, SkipsFrames, Source
from ape_stream.protocols.tracker import Tracker

__all__ = [
    "ChecksItself",
    "ControlsRun",
    "EmbedsTexts",
    "EndsRun",
    "GivesQueries",
    "KnowsFrameCount",
    "KnowsRate",
    "KnowsWeights",
    "NeedsMaps",
    "PaintsMaps",
    "Perceiver",
    "RanksRegions",
    "ReadsFiles",
    "ReportsMemory",
    "ReportsThreshold",
    "RunControl",
    "SeesFrames",
    "Sink",
    "SkipsFrames",
    "Source",
    "Tracker",
    "WatchesRun",
    "WritesFiles",
]
