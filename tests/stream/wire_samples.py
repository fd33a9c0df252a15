"""Results that tests send around: small, ragged, with everything a message can hold."""

from __future__ import annotations

import numpy as np

from ape_stream.types import Frame, FrameResult, Instances, Mask, Prompt, PromptKind, PromptSet

PROMPTS = PromptSet(
    (
        Prompt("red apple", threshold=0.25),
        Prompt("a dog, asleep", PromptKind.SENTENCE),
        Prompt("жёлтое небо", PromptKind.VOCABULARY, stuff=True),
    )
)


def ragged_mask(rng, height, width, size):
    """A blob with holes, cut somewhere inside a frame of `size`."""
    bitmap = rng.random((height, width)) < 0.5
    bitmap[1 : height // 2, 1 : width // 2] = True
    y, x = rng.integers(0, size[0] - height + 1), rng.integers(0, size[1] - width + 1)
    return Mask(bitmap, int(x), int(y))


def a_frame(index=0, size=(48, 64), stream="cam", seed=0):
    rng = np.random.default_rng(seed + index)
    image = np.kron(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1)))
    return Frame(image.astype(np.uint8), index, 0.1 * index, stream, captured_ns=10**12 + index)


def a_result(index=0, n=4, size=(48, 64), stream="cam", *, tracked=True, prompts=None):
    rng = np.random.default_rng(index)
    prompts = prompts or PROMPTS
    masks = tuple(ragged_mask(rng, 3 + k % 9, 4 + k % 7, size) for k in range(n))
    boxes = [[m.x, m.y, m.x + m.bitmap.shape[1], m.y + m.bitmap.shape[0]] for m in masks]
    found = Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4) + np.float32(0.1),
        scores=rng.random(n).astype(np.float32),
        prompt_ids=rng.integers(0, len(prompts), n).astype(np.int64),
        masks=masks,
        size=size,
        track_ids=np.arange(1, n + 1, dtype=np.int64) if tracked else None,
    )
    timings = {"perceive": 12.5, "track": 0.25}
    return FrameResult(a_frame(index, size, stream), found, prompts, timings)


def assert_same(left, right, *, with_image=True):
    """Every field of two results agrees, to the bit."""
    assert left.prompts == right.prompts
    assert dict(left.timings) == dict(right.timings)
    for name in ("index", "time_s", "stream", "captured_ns", "size"):
        assert getattr(left.frame, name) == getattr(right.frame, name), name
    if with_image:
        np.testing.assert_array_equal(left.frame.image, right.frame.image)
    for name in ("boxes", "scores", "prompt_ids", "track_ids"):
        np.testing.assert_array_equal(
            getattr(left.instances, name), getattr(right.instances, name), err_msg=name
        )
    assert left.instances.size == right.instances.size
    for a, b in zip(left.instances.masks, right.instances.masks, strict=True):
        assert (a.x, a.y) == (b.x, b.y)
        np.testing.assert_array_equal(a.bitmap, b.bitmap)
