"""Bytes and latency on the wire: python -m ape_nodes.zmq_bench.

Publishes 1080p results with 1, 20 and 100 regions over loopback TCP and times publish -> decoded
at the reader, beside what people do by habit: pickled dense masks, and raw frames (imagezmq).
"""

from __future__ import annotations

import pickle
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import zmq

from ape_stream.masks import paste
from ape_stream.types import Frame, FrameResult, Instances, Mask, PromptSet
from ape_stream.wire import Envelope, decode_result, encode_result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main", "scene"]

SIZE: Final = (1080, 1920)
ROUNDS: Final = 50
HABIT_ROUNDS: Final = 5
_ENVELOPE: Final = Envelope("bench", "0", 0)


def scene(regions: int) -> FrameResult:
    """A result of ragged blobs, about 51,000 pixels each, at random places."""
    rng = np.random.default_rng(regions)
    y, x = np.mgrid[-1:1:256j, -1:1:328j]
    blob = x**2 + y**2 + 0.1 * np.sin(40 * x) * np.cos(37 * y) < 0.75
    corners = rng.integers(0, (SIZE[1] - 328, SIZE[0] - 256), (regions, 2))
    masks = tuple(Mask(blob, int(left), int(top)) for left, top in corners)
    boxes = np.hstack([corners, corners + np.array([328, 256])]).astype(np.float32)
    found = Instances(
        boxes, rng.random(regions).astype(np.float32), np.zeros(regions, np.int64), masks, SIZE
    )
    return FrameResult(Frame(np.zeros((*SIZE, 3), np.uint8), 0, 0.0), found, PromptSet.of("blob"))


def _dense(result: FrameResult) -> bytes:
    masks = np.stack([paste(mask, SIZE) for mask in result.instances.masks])
    return pickle.dumps((result.instances.boxes, result.instances.scores, masks))


def _measure(encode: Callable[[], bytes], decode: Callable[[bytes], object], rounds: int) -> str:
    with (
        zmq.Context() as context,
        context.socket(zmq.PUSH) as out,
        context.socket(zmq.PULL) as into,
    ):
        port = out.bind_to_random_port("tcp://127.0.0.1")
        into.connect(f"tcp://127.0.0.1:{port}")
        times, size = [], 0
        for _ in range(rounds):
            start = time.perf_counter()
            out.send(encode())
            message = into.recv()
            decode(message)
            times.append(1000 * (time.perf_counter() - start))
            size = len(message)
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return f"{size:>12,} | {p50:8.2f} | {p95:8.2f} | {p99:8.2f}"


def main() -> None:
    """Print the table."""
    print("what                      |        bytes |   p50 ms |   p95 ms |   p99 ms")  # noqa: T201
    for regions in (1, 20, 100):
        result = scene(regions)
        ours = _measure(partial(encode_result, result, _ENVELOPE), decode_result, ROUNDS)
        print(f"wire v1, {regions:>3} regions      | {ours}")  # noqa: T201
        habit = _measure(partial(_dense, result), pickle.loads, HABIT_ROUNDS)
        print(f"pickled dense, {regions:>3} regions| {habit}")  # noqa: T201
    raw = np.zeros((*SIZE, 3), np.uint8)
    frames = _measure(raw.tobytes, lambda data: np.frombuffer(data, np.uint8), HABIT_ROUNDS)
    print(f"raw 1080p frame           | {frames}")  # noqa: T201


if __name__ == "__main__":
    main()
