"""A camera and a model for tests of the live page: quick, exact, and prompt-dependent.

Run as a script it serves them: `python tests/nodes/web/live_world.py web:127.0.0.1:8008`.
"""

import itertools
import sys
import threading
import time
import zlib

import numpy as np

from ape_nodes.web.sink import WebSink
from ape_stream.closing import Closing
from ape_stream.errors import PromptError
from ape_stream.pipeline import Pipeline
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Frame, Instances, Mask, PromptSet

BLOCK = 16
"""Pixels of a side of one bit of the clock."""
BITS = 24


class ClockSource(Closing):
    """Frames with the milliseconds of the wall clock, modulo 2^24, as blocks in the first rows.

    Bit k is the block at column k * BLOCK: white 1, black 0. The rest is grey, moving stripes.
    """

    live = True

    def __init__(self, name="clock", size=(360, 640), fps=30.0, count=None):
        self.name = name
        self._size = size
        self._fps = fps
        self._count = count
        self._left = False

    def close(self, _error=None):
        self._left = True

    def __iter__(self):
        started = time.monotonic()
        height, width = self._size
        stripes = np.tile((np.arange(width + 64) // 8 % 2 * 40 + 80).astype(np.uint8), (height, 1))
        for index in itertools.count() if self._count is None else range(self._count):
            time.sleep(max(0.0, started + index / self._fps - time.monotonic()))
            if self._left:
                return
            shift = index % 64
            image = np.repeat(stripes[:, shift : shift + width, None], 3, axis=2)
            now_ms = int(1e3 * time.time()) % (1 << BITS)
            for bit in range(min(BITS, width // BLOCK)):
                image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (now_ms >> bit & 1)
            yield Frame(image, index, index / self._fps, self.name, time.monotonic_ns())


class PausedSource(ClockSource):
    """Ten frames a second; none while `goes` is not set."""

    def __init__(self, size):
        super().__init__(size=size, fps=10.0)
        self.goes = threading.Event()
        self.goes.set()

    def close(self, _error=None):
        super().close()
        self.goes.set()

    def __iter__(self):
        for frame in super().__iter__():
            yield frame
            self.goes.wait()


def clock_ms(image):
    """The milliseconds in an image of a `ClockSource`."""
    middle = BLOCK // 2
    lit = [int(image[middle, bit * BLOCK + middle, 0] > 127) for bit in range(BITS)]
    return sum(bit << k for k, bit in enumerate(lit))


def square_of(text, index, size):
    """Where a prompt's square is in a frame: x1 y1 x2 y2; it moves 2 pixels right a frame."""
    height, width = size
    side = height // 6
    code = zlib.crc32(text.encode())
    x = (code + 2 * index) % (width - side)
    y = 2 * BLOCK + code // 997 % (height - side - 2 * BLOCK)
    return x, y, x + side, y + side


class SquaresPerceiver:
    """Finds one moving square for each prompt; `bad...` cannot be used.

    Args:
        delay_s: Seconds a call.
        encode_s: Seconds for each new prompt.
        still: The squares stay where they are in frame 0.
    """

    def __init__(self, delay_s=0.0, encode_s=0.0, *, still=False):
        self._still = still
        self.encoded = []
        self._delay_s = delay_s
        self._encode_s = encode_s
        self._prompts = PromptSet.of("none")

    def prepare(self, prompts):
        for text in prompts.texts:
            if text.startswith("bad"):
                raise PromptError(f"{text!r} cannot be used with this model")
        fresh = [text for text in prompts.texts if text not in self.encoded]
        self.encoded += fresh
        time.sleep(self._encode_s * len(fresh))
        self._prompts = prompts

    def perceive(self, frames):
        time.sleep(self._delay_s)
        return [self._find(frame) for frame in frames]

    def _find(self, frame):
        kept = [k for k, p in enumerate(self._prompts) if (p.threshold or 0.0) <= 0.9]
        index = 0 if self._still else frame.index
        boxes = [square_of(self._prompts[k].text, index, frame.size) for k in kept]
        return Instances(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.full(len(kept), 0.9, np.float32),
            prompt_ids=np.array(kept, np.int64),
            masks=tuple(
                Mask(np.ones((y2 - y1, x2 - x1), bool), x1, y1) for x1, y1, x2, y2 in boxes
            ),
            size=frame.size,
        )


def main(output):
    sources = [ClockSource("front", (720, 1280)), ClockSource("back")]
    run = Pipeline(
        sources,
        SquaresPerceiver(delay_s=0.05, encode_s=0.5),
        PromptSet.of("red apple, fox"),
        tracker=IouTracker,
        sinks=[WebSink(output)],
    )
    for _ in run:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
