"""Results reach supervision without a dense frame, and come back the same."""

import tracemalloc

import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

from ape_stream.interop import UNCONFIRMED, from_detections, to_detections
from ape_stream.masks import extents
from ape_stream.types import Frame, FrameResult, Instances, Mask, PromptSet

PROMPTS = PromptSet.of("red apple, dog face")


def result(masks, size=(40, 60), track_ids=None):
    n = len(masks)
    instances = Instances(
        boxes=np.array(
            [(m.x, m.y, m.x + m.bitmap.shape[1], m.y + m.bitmap.shape[0]) for m in masks],
            np.float32,
        ).reshape(-1, 4),
        scores=np.linspace(0.5, 0.9, n, dtype=np.float32),
        prompt_ids=np.arange(n, dtype=np.int64) % 2,
        masks=tuple(masks),
        size=size,
        track_ids=track_ids,
    )
    frame = Frame(np.zeros((*size, 3), np.uint8), 7, 0.25, "cam")
    return FrameResult(frame, instances, PROMPTS)


def ring(h, w):
    bitmap = np.ones((h, w), np.bool_)
    bitmap[1:-1, 1:-1] = False
    return bitmap


def test_fields_mean_what_supervision_users_expect():
    ids = np.array([4, 0], np.int64)
    found = result([Mask(ring(5, 6), 3, 2), Mask(ring(4, 4), 50, 30)], track_ids=ids).detections
    assert found.xyxy.tolist() == [[3, 2, 9, 7], [50, 30, 54, 34]]
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["red apple", "dog face"]
    assert found.tracker_id.tolist() == [4, UNCONFIRMED]
    assert found.confidence == pytest.approx([0.5, 0.9])
    assert found.metadata == {"stream": "cam", "frame_index": 7, "time_s": 0.25}


def test_before_tracking_there_are_no_tracker_ids():
    assert result([Mask(ring(3, 3))]).detections.tracker_id is None


def test_nothing_found_is_empty_detections_with_class_names():
    found = result([]).detections
    assert len(found) == 0
    assert found.mask.shape == (0, 40, 60)
    assert len(found.data["class_name"]) == 0
    assert found[found.confidence > 0.5].is_empty()


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4))
def test_masks_are_the_same_pixels_when_touched(bitmaps):
    masks = [
        Mask(np.array(bits, np.bool_).reshape(3, 4), 5 * k, 2 * k) for k, bits in enumerate(bitmaps)
    ]
    dense = np.asarray(result(masks).detections.mask)
    assert dense.shape == (len(masks), 40, 60)
    for mask, got in zip(masks, dense, strict=True):
        expected = np.zeros((40, 60), np.bool_)
        expected[mask.y : mask.y + 3, mask.x : mask.x + 4] = mask.bitmap
        np.testing.assert_array_equal(got, expected)


def test_an_empty_mask_stays_empty():
    dense = result([Mask(np.zeros((0, 0), np.bool_)), Mask(ring(3, 3), 57, 37)]).detections.mask
    assert dense[0].sum() == 0
    assert dense[1].sum() == 8


def test_no_dense_frame_is_made_before_a_mask_is_touched():
    masks = [Mask(ring(40, 40), 10 * k, 10 * k) for k in range(100)]
    given_result = result(masks, size=(1080, 1920))
    tracemalloc.start()
    found = given_result.detections
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # bytes; dense they are 207 MB
    assert found.mask.shape == (100, 1080, 1920)


def test_supervision_annotates_and_filters_them():
    found = result([Mask(ring(9, 9), 3, 2), Mask(ring(9, 9), 30, 20)]).detections
    scene = np.zeros((40, 60, 3), np.uint8)
    drawn = sv.MaskAnnotator().annotate(scene.copy(), found[found.class_id == 1])
    assert drawn[20, 30].any()
    assert not drawn[2, 3].any()


def test_there_and_back_again_is_the_same():
    ids = np.array([3, 0], np.int64)
    original = result([Mask(ring(5, 6), 3, 2), Mask(ring(4, 4), 50, 30)], track_ids=ids).instances
    back = from_detections(result(original.masks, track_ids=ids).detections, original.size)
    np.testing.assert_array_equal(back.boxes, original.boxes)
    np.testing.assert_array_equal(back.track_ids, ids)
    np.testing.assert_array_equal(back.prompt_ids, original.prompt_ids)
    for ours, theirs in zip(original.masks, back.masks, strict=True):
        assert (ours.x, ours.y) == (theirs.x, theirs.y)
        np.testing.assert_array_equal(ours.bitmap, theirs.bitmap)


def test_boxes_alone_stay_boxes():
    found = sv.Detections(xyxy=np.array([[1.5, 2, 4.2, 6], [-5, -5, 3, 3]]))
    got = from_detections(found, (10, 12))
    assert got.masks is None
    touched = [(m.x, m.y, *m.bitmap.shape) for m in extents(got)]
    assert touched == [(1, 2, 4, 4), (0, 0, 3, 3)]
    assert to_detections(got, PromptSet.of(["a"])).mask is None
    assert got.scores.tolist() == [1, 1]
    assert got.prompt_ids.tolist() == [0, 0]
    assert got.track_ids is None


def test_masks_of_another_size_are_refused():
    found = sv.Detections(xyxy=np.zeros((1, 4)), mask=np.ones((1, 5, 5), np.bool_))
    with pytest.raises(ValueError, match=r"masks are \(5, 5\), the frame is \(10, 12\)"):
        from_detections(found, (10, 12))
