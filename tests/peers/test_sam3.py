"""SAM 3: regions with masks, those of its own forward pass."""

import numpy as np
import pytest
import torch

from ape_peers import sam3 as module
from ape_peers.images import normalised, resized
from ape_peers.sam3 import Sam3Perceiver
from ape_stream.types import Frame, PromptSet

transformers = pytest.importorskip("transformers", "5.0")
PROMPTS = PromptSet.of(["cat", "red apple"])
HALF = (0.5, 0.5, 0.5)


def frame(size=(30, 50), seed=0):
    return Frame(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), 0, 0.0)


@pytest.fixture(scope="module")
def perceiver(sam3):
    return Sam3Perceiver(model=str(sam3), threshold=0.0)


def test_regions_are_those_of_the_whole_network(perceiver, sam3):
    given = frame()
    perceiver.prepare(PROMPTS)
    [found] = perceiver.rank([given], 1000)
    assert len(found) == 16
    tokenizer = transformers.AutoTokenizer.from_pretrained(sam3)
    tokens = tokenizer(["red apple"], padding="max_length", max_length=32, return_tensors="pt")
    pixels = normalised(resized(given.image, (56, 56)), HALF, HALF)
    with torch.inference_mode():
        whole = perceiver.network(
            pixel_values=pixels,
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        )
        scores = whole.pred_logits[0].sigmoid() * whole.presence_logits[0].sigmoid()
        order = scores.argsort(descending=True, stable=True)
        mask = torch.nn.functional.interpolate(
            whole.pred_masks[:, order], size=given.size, mode="bilinear"
        )
    own = found.select(found.prompt_ids == 1)
    np.testing.assert_allclose(own.scores, scores[order], atol=1e-5)
    expected = whole.pred_boxes[0][order] * torch.tensor([50, 30, 50, 30])
    np.testing.assert_allclose(own.boxes, expected, atol=1e-3)
    for one, truth in zip(own.masks, mask[0] > 0, strict=True):
        dense = np.zeros(given.size, bool)
        height, width = one.bitmap.shape
        dense[one.y : one.y + height, one.x : one.x + width] = one.bitmap
        assert (dense == truth.numpy()).mean() > 0.995


def test_many_prompts_have_the_masks_of_few(perceiver, monkeypatch):
    perceiver.prepare(PROMPTS)
    [few] = perceiver.perceive([frame()])
    monkeypatch.setattr(module, "PROMPTS_WITH_MASKS", 1)
    [many] = perceiver.perceive([frame()])
    assert len(few) == len(many) > 0
    for one, other in zip(few.masks, many.masks, strict=True):
        assert (one.x, one.y) == (other.x, other.y)
        assert np.array_equal(one.bitmap, other.bitmap)


def test_texts_are_embedded_once(perceiver, monkeypatch):
    perceiver.prepare(PROMPTS)
    monkeypatch.setattr(perceiver, "_tokenizer", None)
    perceiver.prepare(PROMPTS)
