"""Made-up results of a pipeline, for sinks to write."""

from __future__ import annotations

import numpy as np

from ape_stream import masks
from ape_stream.types import Frame, FrameResult, Instances, PromptSet

PROMPTS = PromptSet.of(["red apple", "dog's face, sleeping", "苹果"])


def disc(size, x, y, radius):
    """A round mask, cut at the frame's border."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    return masks.crop((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def made(k=0, *, size=(90, 120), found=2, stream="cam", time_s=None, origin=None):
    """The k-th result: grey image, `found` discs that move with k."""
    regions = tuple(disc(size, 20 + k + 30 * n, 30 + 10 * n, 14 - 3 * n) for n in range(found))
    image = np.full((*size, 3), 60 + k % 100, np.uint8)
    return FrameResult(
        Frame(image, k, k / 25 if time_s is None else time_s, stream, 1, origin),
        Instances(
            boxes=masks.boxes(regions),
            scores=np.linspace(0.9, 0.5, found, dtype=np.float32),
            prompt_ids=np.arange(found, dtype=np.int64) % len(PROMPTS),
            masks=regions,
            size=size,
            track_ids=np.arange(found, dtype=np.int64),  # the first is not yet confirmed
        ),
        PROMPTS,
    )
