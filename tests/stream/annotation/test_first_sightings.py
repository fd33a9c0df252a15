"""A track has its id from its first frame on, though the tracker gave it later."""

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.annotation.first_sightings import with_first_sightings
from ape_stream.testing import frames
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import FrameResult, Instances, PromptSet

SIZE = (40, 60)
PROMPTS = PromptSet.of("cup")


def found(*lefts):
    """Squares at these columns, each in a row of its own."""
    shapes = []
    for left in lefts:
        shape = np.zeros(SIZE, bool)
        shape[4:12, left : left + 8] = True
        shapes.append(masks.crop(shape))
    return Instances(
        boxes=np.array([masks.box(shape) for shape in shapes], np.float32).reshape(-1, 4),
        scores=np.full(len(lefts), 0.9, np.float32),
        prompt_ids=np.zeros(len(lefts), np.int64),
        masks=tuple(shapes),
        size=SIZE,
    )


def named(per_frame, **options):
    """What each frame's regions are called: ids by column."""
    tracker = IouTracker(**options)
    images = frames(len(per_frame), size=SIZE)
    results = (
        FrameResult(frame, tracker.update(found(*lefts), frame.time_s), PROMPTS)
        for frame, lefts in zip(images, per_frame, strict=True)
    )
    given = [*with_first_sightings(results)]
    assert [result.frame.index for result in given] == [*range(len(per_frame))]
    return [
        dict(zip(lefts, result.instances.track_ids.tolist(), strict=True))
        for lefts, result in zip(per_frame, given, strict=True)
    ]


@pytest.mark.parametrize("min_hits", [1, 2, 3, 5])
def test_a_track_has_its_id_in_all_its_frames(min_hits):
    assert named([(0, 20)] * 6, min_hits=min_hits) == [{0: 1, 20: 2}] * 6


def test_what_is_never_confirmed_has_no_id():
    assert named([(0, 20), (0,), (0, 40), (0,)], min_hits=2) == [
        {0: 1, 20: 0}, {0: 1}, {0: 1, 40: 0}, {0: 1}
    ]  # fmt: skip


def test_a_free_id_that_another_thing_gets_is_not_handed_back_to_the_first():
    # The thing at 20 ends in the frame in which the one at 40 is born.
    assert named([(20,), (40,), (40,), (40,)], min_hits=3) == [{20: 0}, {40: 2}, {40: 2}, {40: 2}]


def test_the_end_of_a_stream_decides():
    assert named([(0,), (0,)], min_hits=3) == [{0: 0}, {0: 0}]


def test_frames_are_not_held_for_ever():
    taken = []
    tracker = IouTracker(min_hits=1000)

    def results():
        for frame in frames(40, size=SIZE):
            taken.append(frame.index)
            yield FrameResult(frame, tracker.update(found(0), frame.time_s), PROMPTS)

    assert next(with_first_sightings(results())).frame.index == 0
    assert len(taken) == 17


def test_without_a_tracker_nothing_changes():
    results = [FrameResult(frame, found(0), PROMPTS) for frame in frames(2, size=SIZE)]
    assert [*with_first_sightings(results)] == results
