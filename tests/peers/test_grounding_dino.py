"""Grounding DINO: captions, and the scores of its own forward pass."""

import numpy as np
import pytest
import torch

from ape_peers.grounding_dino import GroundingDinoPerceiver
from ape_peers.images import IMAGENET_MEAN, IMAGENET_STD, normalised, short_edge
from ape_stream.errors import PromptError
from ape_stream.types import Frame, Prompt, PromptKind, PromptSet

transformers = pytest.importorskip("transformers")
CLS, SEP, STOP, CAT, RED, APPLE, THE, DOG = 101, 102, 1012, 1040, 1041, 1042, 1043, 1044
SENTENCE = Prompt("the dog", PromptKind.SENTENCE)


def frame(size=(48, 80), seed=0):
    return Frame(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), 0, 0.0)


@pytest.fixture(scope="module")
def perceiver(grounding_dino):
    return GroundingDinoPerceiver(model=str(grounding_dino), threshold=0.0)


@pytest.mark.parametrize("size", [(48, 80), (131, 97), (40, 200), (64, 64)])
def test_the_image_is_prepared_as_by_transformers(size):
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (  # noqa: PLC0415
        GroundingDinoImageProcessorPil,
    )

    bgr = frame(size).image
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    theirs = processor(np.ascontiguousarray(bgr[..., ::-1]), return_tensors="pt")["pixel_values"]
    ours = normalised(short_edge(bgr, 64, 96), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def captions(perceiver, *prompts):
    perceiver.prepare(PromptSet.of(prompts))
    return [(one.tokens, one.spans) for one in perceiver._captions]


def test_names_share_a_caption_and_a_sentence_has_its_own(perceiver):
    assert captions(perceiver, "cat", SENTENCE, "Red apple.") == [
        ([CLS, CAT, STOP, RED, APPLE, STOP, SEP], {0: slice(1, 2), 2: slice(3, 5)}),
        ([CLS, THE, DOG, STOP, SEP], {1: slice(1, 3)}),
    ]


def test_names_that_do_not_fit_begin_another_caption(perceiver):
    found = captions(perceiver, *(" ".join(["cat"] * n) for n in (5, 6, 1, 3)))
    assert [list(spans) for _, spans in found] == [[0, 1], [2, 3]]
    assert max(len(tokens) for tokens, _ in found) <= 16
    with pytest.raises(PromptError, match="more than 13 tokens"):
        captions(perceiver, " ".join(["cat"] * 14))
    with pytest.raises(PromptError, match="no word"):
        captions(perceiver, "?.")


def test_scores_and_boxes_are_those_of_the_whole_network(perceiver):
    given = frame()
    perceiver.prepare(PromptSet.of(["cat", "red apple"]))
    [found] = perceiver.rank([given], 1000)
    tokens = torch.tensor([[CLS, CAT, STOP, RED, APPLE, STOP, SEP]])
    pixels = normalised(short_edge(given.image, 64, 96), IMAGENET_MEAN, IMAGENET_STD)
    with torch.inference_mode():
        whole = perceiver.network(pixel_values=pixels, input_ids=tokens)
    logits = whole.logits[0].sigmoid()
    scores = torch.stack([logits[:, 1], (logits[:, 3] + logits[:, 4]) / 2], 1).flatten()
    order = scores.argsort(descending=True, stable=True)
    assert len(found) == 24
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-5)
    x, y, w, h = whole.pred_boxes[0].repeat_interleave(2, 0)[order].T
    expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    np.testing.assert_allclose(found.boxes, expected * torch.tensor([80, 48, 80, 48]), atol=1e-3)


def test_each_prompt_is_found_under_its_own_id(perceiver):
    perceiver.prepare(PromptSet.of([SENTENCE, "cat"]))
    [found] = perceiver.perceive([frame()])
    assert set(found.prompt_ids.tolist()) == {0, 1}
    assert found.masks is None
