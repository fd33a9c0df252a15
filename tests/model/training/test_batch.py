"""Batches of images of different sizes: padded as in inference, and nothing learnt of padding."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ape_model.config import NANO
from ape_model.inference.preprocess import make_batch
from ape_model.network.boxes import corners
from ape_model.network.nano import build_nano
from ape_model.training.data.batch import Example, collate
from ape_model.training.data.photometric import photometric
from ape_model.training.data.world_dataset import Canvas, Phase, WorldBatches
from ape_model.training.losses.criterion import Criterion, Targets
from ape_model.world import World


def example(height, width, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.zeros((height, width), np.int32)
    ids[8:40, 8:56] = 1
    return Example(
        image=rng.integers(0, 256, (height, width, 3), np.uint8),
        ids=ids,
        boxes=np.array([[8, 8, 56, 40]], np.float32),
        classes=np.array([3]),
    )


def test_a_batch_is_padded_as_frames_are_in_inference():
    examples = [example(90, 128), example(128, 72)]
    batch = collate(examples, NANO)
    images, sizes = make_batch([e.image for e in examples], replace(NANO.ape, canvas=128))
    assert batch.sizes == sizes == ((90, 128), (128, 72))
    torch.testing.assert_close(batch.images, images)


def test_boxes_and_masks_of_a_padded_batch_lie_where_they_lay():
    batch = collate([example(90, 128), example(288, 384)], NANO)
    assert batch.unit == 384  # one unit holds the larger canvas
    boxes = corners(batch.boxes[:, 0]) * batch.unit
    torch.testing.assert_close(boxes, torch.tensor([[8.0, 8.0, 56.0, 40.0]] * 2))
    assert batch.masks[:, 0].sum().item() == 2 * 32 * 48 / 16
    assert batch.masks[:, 0, 2:10, 2:14].all()


@pytest.mark.parametrize("canvas", [(96, 256), (224, 384), (480, 480)])
def test_anchors_reach_every_corner_of_a_canvas(canvas):
    features = build_nano(NANO).eval().encode_image(torch.zeros(1, 3, *canvas))
    centers = features.geometry.anchors[0, :, :2].sigmoid() * NANO.unit_on(canvas)
    assert centers.amax(0).tolist() == pytest.approx([canvas[1] - 4, canvas[0] - 4], abs=1)
    sides = features.geometry.anchors[0, 0, 2:].sigmoid() * NANO.unit_on(canvas)
    assert sides.tolist() == pytest.approx([28, 28], abs=0.1)


def test_tokens_of_the_padding_are_no_background_to_learn():
    torch.manual_seed(0)
    model = build_nano(NANO).eval()
    batch = collate([example(90, 128), example(224, 224)], NANO)
    criterion = Criterion(NANO.ape.hidden, NANO.ape.text_width)
    names = torch.nn.functional.normalize(torch.randn(5, NANO.ape.text_width), dim=-1)
    features = model.encode_image(batch.images, batch.sizes)
    outputs = model.head(features, model.vocabulary(names))
    truth = torch.zeros(2, 1, 5)
    truth[..., 3] = 1
    padded = features.geometry.padded
    assert padded[0].any()

    def objectness(changed, score):
        scores = outputs.tokens.objectness.masked_fill(changed, score)
        other = replace(outputs, tokens=replace(outputs.tokens, objectness=scores))
        losses = criterion(model, features, other, batch, Targets(truth, names, batch.classes))
        assert all(torch.isfinite(value) for value in losses.values())
        return losses["objectness"].item()

    assert objectness(padded, -5.0) == objectness(padded, 5.0)
    assert objectness(~padded, -5.0) < objectness(~padded, 5.0)


def test_no_query_comes_from_the_padding():
    torch.manual_seed(0)
    model = build_nano(NANO).eval()
    batch = collate([example(96, 100), example(256, 256)], NANO)
    features = model.encode_image(batch.images, batch.sizes)
    # An untrained network may love the state of an empty token: it is the only one that is equal.
    outputs = model.head(features, model.vocabulary(torch.randn(3, NANO.ape.text_width)))
    padded = features.geometry.padded
    assert padded[0].any()
    assert not padded.gather(1, outputs.proposals.tokens).any()


def test_the_images_of_a_varied_canvas_differ_and_stay_within_it():
    canvas, rng = Canvas(192, 256, 4, vary=0.4), random.Random(0)
    sizes = {canvas.draw(rng) for _ in range(200)}
    heights, widths = zip(*sizes, strict=True)
    assert min(heights) in range(115, 120)
    assert max(heights) in range(188, 193)
    assert min(widths) in range(153, 160)
    assert max(widths) in range(250, 257)


def test_a_zoomed_canvas_shows_smaller_things_in_images_of_the_same_size():
    def longest(zoom):
        phase = Phase(0, (Canvas(144, 256, 6, 4, zoom=zoom),))
        batch = WorldBatches((phase,), seed=1, network=NANO, steps=1)[0]
        assert batch.sizes == ((144, 256),) * 6
        things = batch.valid & (batch.classes < World().things)
        bounds = batch.masks[things].flatten(1).sum(1)
        return (batch.boxes[things][:, 2:].amax(1) * batch.unit).mean(), bounds.mean()

    plain, zoomed = longest(1.0), longest(3.0)
    assert zoomed[0] < 0.75 * plain[0]
    assert zoomed[1] < 0.6 * plain[1]


def test_canvases_are_drawn_by_what_is_asked_for():
    phase = Phase(0, (Canvas(96, 96, 1, names=0), Canvas(96, 128, 1, sentences=0)), 0.5)
    batches = WorldBatches((phase,), seed=0, network=NANO, steps=20)
    for step in range(20):
        batch = batches[step]
        assert batch.sizes == (((96, 96),) if any(batch.sentences) else ((96, 128),))


def test_light_changes_and_no_pixel_moves():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = (40, 160, 220)
    rng = random.Random(0)
    changed = [photometric(image, rng) for _ in range(40)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    inside = np.array([one[20:44, 20:44].mean((0, 1)) for one in changed])
    assert (inside.std(0) > 8).all()
    contrast = [one[32, 32].astype(int) - one[4, 4] for one in changed]
    assert all(abs(c).max() > 60 for c in contrast)
    assert not image[0].any()  # what was given is unchanged
