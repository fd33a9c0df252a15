"""The overlay against supervision's, pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import supervision as sv
from results import disc, made

from ape_stream import masks
from ape_stream.draw import _label, draw, pixelate, tint
from ape_stream.types import Instances, PromptSet

SIZE = (120, 160)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_tinting_equals_supervision_with_overlaps(opacity):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    regions = tuple(
        disc(SIZE, *rng.integers(0, 120, 2).tolist(), radius) for radius in (40, 12, 25, 33, 12)
    )
    colours = rng.integers(0, 256, (5, 3), dtype=np.uint8)
    palette = sv.ColorPalette([sv.Color(r=int(r), g=int(g), b=int(b)) for b, g, r in colours])
    wanted = sv.MaskAnnotator(palette, opacity=opacity).annotate(
        image.copy(),
        sv.Detections(
            xyxy=masks.boxes(regions),
            mask=np.stack([masks.paste(region, SIZE) for region in regions]),
            class_id=np.arange(5),
        ),
    )
    tint(image, regions, colours, opacity)
    assert np.abs(image.astype(int) - wanted).max() <= 1


def test_tinting_touches_nothing_but_the_masks():
    image = np.full((*SIZE, 3), 100, np.uint8)
    region = disc(SIZE, 50, 60, 20)
    tint(image, (region, masks.crop(np.zeros(SIZE, np.bool_))), np.full((2, 3), 200, np.uint8))
    dense = masks.paste(region, SIZE)
    assert (image[dense] == 150).all()
    assert (image[~dense] == 100).all()


def test_a_mask_beyond_its_box_is_drawn_whole():
    result = made(size=SIZE)
    found = result.instances
    narrow = Instances(
        found.boxes * 0 + np.float32(5), found.scores, found.prompt_ids, found.masks, found.size
    )
    drawn = draw(type(result)(result.frame, narrow, result.prompts))
    changed = (drawn != result.frame.image).any(axis=2)
    assert changed[masks.paste(found.masks[0], SIZE)].all()


def test_drawing_leaves_the_frame_alone_and_marks_boxes_and_labels():
    result = made(size=(240, 320))
    before = result.frame.image.copy()
    drawn = draw(result)
    np.testing.assert_array_equal(result.frame.image, before)
    assert drawn.shape == before.shape
    assert drawn.dtype == np.uint8
    x1, y1, x2, _ = result.instances.boxes[1].astype(int)
    assert (drawn[y1, x1:x2] != before[y1, x1:x2]).any(axis=1).all()  # the box's upper edge
    covered = np.any([masks.paste(m, (240, 320)) for m in result.instances.masks], axis=0)
    assert ((drawn != before).any(axis=2) & ~covered).sum() > 200  # boxes and labels


def test_a_track_keeps_its_colour():
    first, later = (draw(made(k, size=(240, 320))) for k in (0, 40))
    inside = [made(k).instances.boxes[1, :2].astype(int) + 10 for k in (0, 40)]
    colours = [
        image[y, x].astype(int) - (k * 1) // 2
        for image, (x, y), k in zip((first, later), inside, (0, 40), strict=True)
    ]
    assert np.abs(colours[0] - colours[1]).max() <= 1


def test_a_region_keeps_its_colour_when_its_track_is_confirmed():
    result = made(size=(240, 320))
    ids = np.arange(1, len(result.instances) + 1, dtype=np.int64)
    before, after = (
        replace(result, instances=result.instances.with_track_ids(given, ids))
        for given in (np.zeros_like(ids), ids)
    )
    x, y = result.instances.boxes[1, :2].astype(int) + 10
    assert (draw(before)[y, x] == draw(after)[y, x]).all()
    # Without candidate ids the colour is the prompt's, and changes.
    unsure = replace(result, instances=result.instances.with_track_ids(np.zeros_like(ids)))
    assert (draw(unsure)[y, x] != draw(after)[y, x]).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (33, 17)])
def test_frames_of_any_size_are_drawn(size):
    assert draw(made(size=size, found=1)).shape == (*size, 3)
    empty = made(size=size, found=0)
    np.testing.assert_array_equal(draw(empty), empty.frame.image)


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("🍎 red apple", "red apple"),
        ("dog 👨‍👩‍👧 face", "dog face"),
        ("heart ❤️", "heart"),
        ("苹果", "苹果"),
        ("𠀀", "𠀀"),
    ],
)
def test_emoji_in_labels_are_left_out(text, drawn):
    def labelled(words):
        result = made(size=(240, 320), found=1)
        return draw(type(result)(result.frame, result.instances, PromptSet.of([words])))

    np.testing.assert_array_equal(labelled(text), labelled(drawn))


def test_a_label_of_emoji_alone_is_the_number_of_its_prompt():
    result = made(size=(240, 320), found=1)
    result = type(result)(result.frame, result.instances, PromptSet.of(["🍎"]))
    assert _label(result, 0) == "prompt 1 0.90"


@pytest.mark.parametrize("corner", [(30.0, 20.0), (0.0, 0.0), (75.5, 50.5)])
def test_what_is_pixelated_holds_a_few_colours_and_nothing_else_changes(corner):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (64, 96, 3), np.uint8)
    before = image.copy()
    x, y = corner
    pixelate(image, np.array([[x, y, x + 20, y + 12]], np.float32), cells=4)
    left, top, right, bottom = (round(side) for side in (x, y, x + 20, y + 12))
    inside = image[top:bottom, left:right].reshape(-1, 3)
    assert len(np.unique(inside, axis=0)) <= 16
    assert (image != before).any(axis=2)[top:bottom, left:right].mean() > 0.9
    outside = np.ones((64, 96), bool)
    outside[max(0, top - 4) : bottom + 5, max(0, left - 4) : right + 5] = False
    assert np.array_equal(image[outside], before[outside])


def test_an_empty_box_is_no_reason_to_fail():
    image = np.zeros((8, 8, 3), np.uint8)
    pixelate(image, np.array([[20, 20, 30, 30], [3, 3, 3, 3]], np.float32))
    pixelate(image, np.zeros((0, 4), np.float32))
