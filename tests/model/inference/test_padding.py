"""Padding: nano finds as much with it, and a frame's result never depends on the other frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ape_model.config import NANO, PRESETS
from ape_model.inference.detect import MASK_STEPS, PromptPass, find_regions
from ape_model.inference.preprocess import group_by_canvas, make_batch
from ape_model.perceiver import ApePerceiver
from ape_model.world import World
from ape_stream import masks
from ape_stream.types import Frame, PromptSet

SIZES = [(192, 256), (144, 256), (150, 256), (256, 144), (110, 256), (9, 256), (144, 256)]
TINY = {"canvas": 64, "hidden": 32, "heads": 4, "ffn": 32, "encoder_layers": 1}
TINY |= {"decoder_layers": 2, "queries": 20, "fusion_width": 32, "fusion_heads": 4}
TINY |= {"text_width": 16, "pre_nms_topk": 16, "norm_groups": 8}
VIT = {"width": 32, "depth": 2, "heads": 2, "window": 2, "window_blocks": (0,), "pretrain_grid": 4}


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def nano(home, world):  # noqa: ARG001
    made = ApePerceiver(device="cpu")
    made.prepare(PromptSet.of(list(world.names)))
    return made


def frame(image):
    return Frame(np.ascontiguousarray(image), 0, 0.0)


def whole_things(scene, rows, cols, things):
    """Class and mask of the things of which nearly all shows in the first rows and columns."""
    for region in scene.instances:
        mask = scene.instance_map == region.id
        if region.class_id < things and mask[:rows, :cols].sum() >= 0.95 * mask.sum():
            yield region.class_id, mask


def is_found(found, class_id, wanted):
    drawn = [
        masks.paste(mask, wanted.shape)
        for mask, prompt in zip(found.masks, found.prompt_ids, strict=True)
        if prompt == class_id
    ]
    return any((one & wanted).sum() > 0.5 * (one | wanted).sum() for one in drawn)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((144, 256), id="16:9"),
        pytest.param((256, 144), id="portrait"),
        pytest.param((110, 256), id="21:9"),
        pytest.param((240, 256), id="nearly square"),
        pytest.param((97, 256), id="one row over a multiple"),
    ],
)
def test_nano_finds_as_much_where_a_frame_is_padded(nano, world, size):
    rows, cols = size
    next_size = rows + -rows % 32, cols + -cols % 32
    hits = {size: 0, next_size: 0}
    for seed in range(10):
        scene = world.film(seed, next_size).scene(20)
        truths = list(whole_things(scene, rows, cols, world.things))
        for height, width in hits:
            (found,) = nano.perceive([frame(scene.image[:height, :width])])
            hits[height, width] += sum(
                is_found(found, class_id, mask[:height, :width]) for class_id, mask in truths
            )
    assert hits[next_size] >= 6
    assert hits[size] >= 0.9 * hits[next_size]


def test_a_line_of_pixels_is_seen_without_an_error(nano):
    for size in ((1, 1000), (1000, 1), (1, 1), (3, 500)):
        found = nano.perceive([frame(np.full((*size, 3), 200, np.uint8))])[0]
        assert found.size == size


def assert_alike(found, wanted):
    np.testing.assert_array_equal(found.prompt_ids, wanted.prompt_ids)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
    for mine, alone in zip(found.masks, wanted.masks, strict=True):
        np.testing.assert_array_equal(mine.bitmap, alone.bitmap)


def test_nano_finds_in_a_batch_what_it_finds_in_each_frame_alone(nano, world):
    frames = [
        frame(world.film(seed, (256, 256)).scene(20).image[:rows, :cols])
        for seed, (rows, cols) in enumerate(SIZES)
    ]
    alone = [nano.perceive([one])[0] for one in frames]
    assert sum(len(found) for found in alone) > 20
    for found, wanted in zip(nano.perceive(frames), alone, strict=True):
        assert_alike(found, wanted)


@pytest.mark.parametrize("kind", ["vocabulary", "sentences"])
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "Ti"])
def test_released_models_find_in_a_batch_what_they_find_in_each_frame_alone(shaken, name, kind):
    backbone = replace(PRESETS[name].backbone, **VIT)
    network = shaken(replace(PRESETS[name], **TINY, backbone=backbone))
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    prompts = getattr(network, kind)(torch.randn(3, 16))
    passes = [
        PromptPass(prompts, torch.arange(3), torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    ]

    @torch.inference_mode()
    def regions(images):
        features = network.encode_image(*make_batch(images, network.config))
        return find_regions(network, features, passes, [network.head(features, prompts)])

    for found, image in zip(regions(images), images, strict=True):
        (alone,) = regions([image])
        assert len(found.scores) >= 3
        assert torch.equal(found.prompts, alone.prompts)
        assert found.extent == alone.extent
        for field in ("scores", "boxes"):
            mine, wanted = getattr(found, field), getattr(alone, field)
            torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4)
        off = (found.mask_logits - alone.mask_logits).abs()
        # Rounding makes a whole step of noise where a logit lies between two steps.
        assert off.max() <= 1 / MASK_STEPS
        assert (off > 0).float().mean() < 0.002


def test_frames_share_a_batch_only_where_they_are_padded_alike():
    images = [np.zeros((*size, 3), np.uint8) for size in SIZES]
    assert group_by_canvas(images, NANO.ape) == [(0,), (1, 2, 6), (3,), (4,), (5,)]
    assert group_by_canvas(images, PRESETS["D"]) == [tuple(range(len(SIZES)))]
