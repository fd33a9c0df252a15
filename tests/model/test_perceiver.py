"""What the perceiver does with regions after the network."""

from __future__ import annotations

import numpy as np
import pytest

from ape_model.perceiver import _one_mask_each
from ape_stream import masks
from ape_stream.types import Instances, Mask

SIZE = (100, 100)


def found(*regions: tuple[int, int, int, int, int, float]) -> Instances:
    """Full rectangles as (x, y, width, height, prompt id, score)."""
    drawn = tuple(Mask(np.ones((h, w), np.bool_), x, y) for x, y, w, h, *_ in regions)
    return Instances(
        boxes=masks.boxes(drawn),
        scores=np.array([region[5] for region in regions], np.float32),
        prompt_ids=np.array([region[4] for region in regions], np.int64),
        masks=drawn,
        size=SIZE,
    )


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        pytest.param((12, 10, 40, 40, 0, 0.6), [0.9], id="the same thing"),
        pytest.param((20, 20, 10, 10, 0, 0.6), [0.9], id="a part of it"),
        pytest.param((0, 0, 90, 90, 0, 0.6), [0.9], id="the thing and more"),
        pytest.param((20, 20, 10, 10, 1, 0.6), [0.9, 0.6], id="a part under another prompt"),
        pytest.param((35, 10, 40, 40, 0, 0.6), [0.9, 0.6], id="a neighbour that overlaps"),
    ],
)
def test_one_thing_keeps_one_mask_for_a_prompt(second, kept):
    first = (10, 10, 40, 40, 0, 0.9)
    for regions in ((first, second), (second, first)):
        left = _one_mask_each(found(*regions))
        np.testing.assert_allclose(sorted(left.scores, reverse=True), kept, rtol=1e-6)
