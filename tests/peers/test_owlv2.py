"""OWLv2 gives what its own forward pass gives, box by box."""

import numpy as np
import pytest
import torch

import ape_stream
from ape_peers.images import CLIP_MEAN, CLIP_STD, normalised, padded_square
from ape_peers.owlv2 import Owlv2Perceiver
from ape_stream.errors import UsageError
from ape_stream.types import Frame, Prompt, PromptKind, PromptSet

transformers = pytest.importorskip("transformers")
PROMPTS = PromptSet((Prompt("cat"), Prompt("the dog on the left", PromptKind.SENTENCE)))


def frame(size=(48, 80), seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Frame(image, 0, 0.0)


@pytest.fixture(scope="module")
def perceiver(owlv2):
    return Owlv2Perceiver(model=str(owlv2), threshold=0.3, per_prompt=3)


@pytest.mark.parametrize("size", [(48, 80), (200, 130), (64, 64)])
def test_the_image_is_prepared_as_by_transformers(size):
    from transformers.models.owlv2.image_processing_pil_owlv2 import (  # noqa: PLC0415
        Owlv2ImageProcessorPil,
    )

    bgr = frame(size).image
    processor = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    theirs = processor(np.ascontiguousarray(bgr[..., ::-1]), return_tensors="pt")["pixel_values"]
    ours = normalised(padded_square(bgr, 64), CLIP_MEAN, CLIP_STD)
    # Rows and columns at the border are mirrored by one and repeated by the other.
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(ours[inner], theirs[inner], atol=0.02, rtol=0)


def test_scores_and_boxes_are_those_of_the_whole_network(perceiver, owlv2):
    given = frame()
    perceiver.prepare(PROMPTS)
    [found] = perceiver.rank([given], 1000)
    tokenizer = transformers.AutoTokenizer.from_pretrained(owlv2)
    texts = ["a photo of a cat", "the dog on the left"]
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=16)
    with torch.inference_mode():
        whole = perceiver.network(
            input_ids=torch.tensor(tokens["input_ids"]),
            attention_mask=torch.tensor(tokens["attention_mask"]),
            pixel_values=normalised(padded_square(given.image, 64), CLIP_MEAN, CLIP_STD),
        )
    scores = whole.logits[0].sigmoid().flatten()
    order = scores.argsort(descending=True)
    assert len(found) == 2 * 16
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-5)
    x, y, w, h = (whole.pred_boxes[0].repeat_interleave(2, 0)[order] * 80).T
    expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    np.testing.assert_allclose(found.boxes, expected, atol=1e-3)


def test_a_prompt_is_found_independently_of_others(perceiver):
    given = frame(seed=1)
    perceiver.prepare(PROMPTS)
    [both] = perceiver.perceive([given])
    perceiver.prepare(PromptSet((PROMPTS[1],)))
    [alone] = perceiver.perceive([given])
    assert both.masks is None
    second = both.select(both.prompt_ids == 1)
    assert 0 < len(second) <= 3
    np.testing.assert_allclose(second.boxes, alone.boxes, atol=1e-4)
    assert (both.boxes >= 0).all()
    assert (both.boxes[:, 2:] <= [80, 48]).all()


def test_texts_are_embedded_once(perceiver, monkeypatch):
    perceiver.prepare(PROMPTS)
    monkeypatch.setattr(perceiver, "_tokenizer", None)
    perceiver.prepare(PROMPTS)


def test_a_model_is_named_with_its_perceiver(owlv2):
    found = ape_stream.find(frame().image, PROMPTS, model=f"owlv2:{owlv2}", threshold=0.0)
    assert set(found.data["class_name"]) == set(PROMPTS.texts)
    assert found.mask is None


def test_options_are_checked(owlv2):
    for wrong, message in [
        ({"template": "a photo"}, "has no {}"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"nms": 0.0}, "nms is 0.0"),
        ({"per_prompt": 0}, "per_prompt is 0"),
        ({"dtype": "int8"}, "no dtype 'int8'"),
        ({"device": "cuda:77"}, "no device 'cuda:77'"),
    ]:
        with pytest.raises(UsageError, match=message):
            Owlv2Perceiver(model=str(owlv2), **wrong)
