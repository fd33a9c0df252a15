"""The clip of the examples, shortened: what documents show runs on whole clips."""

from itertools import islice
from pathlib import Path

import av

DEMO = Path(__file__).resolve().parents[2] / "examples/demo.mp4"


def shorten_demo(path, frames):
    """Copy the first frames without encoding them again."""
    with av.open(DEMO) as clip, av.open(path, "w") as short:
        copy = short.add_stream_from_template(clip.streams.video[0])
        for packet in islice(clip.demux(video=0), frames):
            packet.stream = copy
            short.mux(packet)
