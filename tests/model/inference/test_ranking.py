"""The best regions over all prompts are the same ones, however many are wanted."""

from __future__ import annotations

import numpy as np

from ape_model.perceiver import ApePerceiver
from ape_stream.protocols import RanksRegions
from ape_stream.types import Frame, Prompt, PromptKind, PromptSet


def test_the_best_regions_begin_the_longer_list():
    perceiver = ApePerceiver(model="nano", threshold=0.9)
    assert isinstance(perceiver, RanksRegions)
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    name, sentence = PromptKind.VOCABULARY, PromptKind.SENTENCE
    perceiver.prepare(PromptSet((Prompt("dog", name), Prompt("a red apple", sentence))))
    [every] = perceiver.rank([Frame(image, 0, 0.0)], 10_000)
    [few] = perceiver.rank([Frame(image, 0, 0.0)], 7)
    assert len(few) == 7 < len(every)
    assert np.array_equal(few.scores, every.scores[:7])
    assert np.array_equal(few.boxes, every.boxes[:7])
    assert (np.diff(every.scores) <= 0).all()
    assert set(every.prompt_ids.tolist()) == {0, 1}
