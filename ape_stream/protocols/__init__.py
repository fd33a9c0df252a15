"""The shapes that plugins have: nothing needs to be inherited, any object of the shape will do.

pipeline  Source, Perceiver, Tracker, Sink, and what they may also offer
queries   GivesQueries, a perceiver whose frames can be indexed
worlds    World, for synthetic images and videos with their truth
"""

from ape_stream.protocols.pipeline import (
    ChecksItself,
    ControlsRun,
    EmbedsTexts,
    EndsRun,
    KnowsFrameCount,
    KnowsRate,
    KnowsWeights,
    NeedsMaps,
    PaintsMaps,
    Perceiver,
    RanksRegions,
    ReadsFiles,
    ReportsMemory,
    ReportsThreshold,
    RunControl,
    SeesFrames,
    Sink,
    SkipsFrames,
    Source,
    Tracker,
    WatchesRun,
    WritesFiles,
)
from ape_stream.protocols.queries import GivesQueries

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
