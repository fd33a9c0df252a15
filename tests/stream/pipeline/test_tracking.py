"""Identities go by the words of the prompts, and end where a stream starts again."""

from collections import defaultdict

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.pipeline import Pipeline
from ape_stream.pipeline.tracking import StreamTracker
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Frame, Instances, Mask, Prompt, PromptKind, PromptSet

SIZE = (120, 400)
MOVES = {"car": (10, 5, 3), "dog": (40, 300, -3), "cat": (70, 5, 2), "bus": (10, 10, 3)}
"""Row, first column and columns per frame; the bus drives where the car does, a little behind."""


def found(frame, prompts):
    """The things that are asked for, each moving on its own."""
    asked = [(k, *MOVES[p.text]) for k, p in enumerate(prompts) if p.text in MOVES]
    drawn = tuple(
        Mask(np.ones((20, 30), np.bool_), x + speed * frame.index, y) for _, y, x, speed in asked
    )
    return Instances(
        boxes=masks.boxes(drawn),
        scores=np.full(len(drawn), 0.9, np.float32),
        prompt_ids=np.array([k for k, *_ in asked], np.int64),
        masks=drawn,
        size=SIZE,
    )


def run(changes, *, count=40, sources=None, tracker=IouTracker):
    """Track ids by text, over a run whose prompts change after some frames."""
    source = ListSource(list(frames(count, size=SIZE))) if sources is None else sources
    model = OraclePerceiver(found, delay_s=0.001)
    ids = defaultdict(list)
    with Pipeline([source], model, PromptSet.of(changes[-1]), tracker=tracker) as pipeline:
        for result in pipeline:
            if result.frame.index in changes:
                pipeline.set_prompts(changes[result.frame.index])
            texts = result.prompts.texts
            ids_of = dict(zip(result.instances.prompt_ids, result.instances.track_ids, strict=True))
            for prompt, track in ids_of.items():
                ids[texts[prompt]].append(int(track))
    return {text: set(given) - {0} for text, given in ids.items()}


def test_ids_survive_a_swap_of_the_prompts():
    ids = run({-1: "car, dog", 10: "dog, car", 20: "car, dog", 25: "cat, dog, car"})
    assert len(ids["car"]) == len(ids["dog"]) == len(ids["cat"]) == 1
    assert len(set.union(*ids.values())) == 3


def test_a_word_in_the_place_of_another_takes_none_of_its_tracks():
    ids = run({-1: "car, dog", 15: "bus, dog"})  # the bus overlaps where the car was
    assert len(ids["dog"]) == 1
    assert len(ids["bus"]) == 1
    assert not ids["bus"] & ids["car"]


def test_the_tracks_of_a_word_end_when_it_leaves():
    ids = run({-1: "car, dog", 10: "dog", 15: "dog, car"})
    assert len(ids["dog"]) == 1
    assert len(ids["car"]) == 2


def frame(index, time_s, segment=0):
    return Frame(np.zeros((*SIZE, 3), np.uint8), index, time_s, segment=segment)


def test_a_threshold_is_no_new_identity_but_a_kind_is():
    tracker = StreamTracker(IouTracker)

    def track(index, prompt):
        prompts = PromptSet((prompt,))
        now = frame(index, index / 30)
        return tracker.update(found(now, prompts), prompts, now).track_ids.tolist()

    track(0, Prompt("car"))
    assert track(1, Prompt("car")) == [1]
    assert track(2, Prompt("car", threshold=0.7)) == [1]
    assert track(3, Prompt("car", PromptKind.SENTENCE)) == [0]
    assert track(4, Prompt("car", PromptKind.SENTENCE)) == [2]


class Coasting:
    """Returns what it was given in the frame before, under ids of its own."""

    def __init__(self):
        self.before = None

    def update(self, found, time_s):  # noqa: ARG002 (the protocol's)
        given, self.before = self.before or found, found
        return given.with_track_ids(np.arange(1, len(given) + 1, dtype=np.int64))


def test_a_tracker_may_return_other_regions():
    tracker = StreamTracker(Coasting)
    words = ("car, dog", "dog, cat", "cat, dog", "dog")
    sets = [PromptSet.of(text) for text in words]
    seen = []
    for k, prompts in enumerate(sets):
        now = frame(k, k / 30)
        given = tracker.update(found(now, prompts), prompts, now)
        seen.append([prompts.texts[i] for i in given.prompt_ids])
    # Nobody asks for the car any more, nor, at last, for the cat.
    assert seen == [["car", "dog"], ["dog"], ["dog", "cat"], ["dog"]]


class WithoutIds:
    """A tracker that gives no ids."""

    def update(self, found, time_s):  # noqa: ARG002 (the protocol's)
        return found


@pytest.mark.parametrize("make", [IouTracker, WithoutIds])
def test_a_frame_may_have_no_region_and_a_region_no_id(make):
    tracker, prompts = StreamTracker(make), PromptSet.of("car")
    for k in range(2):
        assert len(tracker.update(Instances.empty(SIZE), prompts, frame(k, k / 30, k))) == 0
    now = frame(2, 2 / 30, 1)
    ids = tracker.update(found(now, prompts), prompts, now).track_ids
    assert ids is None if make is WithoutIds else ids.tolist() == [0]


# ------------------------------------------------------------------------------------ times


def with_times(times):
    return [
        Frame(np.zeros((*SIZE, 3), np.uint8), index, time_s) for index, time_s in enumerate(times)
    ]


class NeverBack:
    """A tracker that refuses a time that steps back."""

    def __init__(self):
        self.last, self.inner = -1.0, IouTracker()

    def update(self, found, time_s):
        assert time_s >= self.last
        self.last = time_s
        return self.inner.update(found, time_s)


@pytest.mark.parametrize("tracker", [IouTracker, NeverBack])
def test_a_clock_that_steps_back_begins_a_new_segment(tracker):
    times = [k / 30 for k in (*range(10), *range(10), *range(5))]
    source = ListSource(with_times(times))
    pipeline = Pipeline([source], OraclePerceiver(found), PromptSet.of("car"), tracker=tracker)
    results = list(pipeline)
    assert len(results) == 25
    assert [r.frame.segment for r in results] == [0] * 10 + [1] * 10 + [2] * 5
    ids = [int(r.instances.track_ids[0]) for r in results]
    assert ids == [0] + [1] * 9 + [0] + [2] * 9 + [0] + [3] * 4
    assert pipeline.stats().streams["0"].restarts == 2


def test_a_restart_among_dropped_frames_still_ends_tracks():
    """The first frame after a restart may be dropped, and time be ahead again at the next."""
    times = [0.0, 0.1, 0.2, 0.0, 0.1, 0.3, 0.4]
    prompts = PromptSet.of("car")
    tracker = StreamTracker(IouTracker)
    given = with_times(times)
    kept = [(given[k], 0) for k in (0, 1, 2)] + [(given[k], 1) for k in (5, 6)]
    ids = [
        int(tracker.update(found(f, prompts), prompts, frame(f.index, f.time_s, s)).track_ids[0])
        for f, s in kept
    ]
    assert ids == [0, 1, 1, 0, 2]


@pytest.mark.parametrize("bad", [-0.5, 1e300, float("nan"), float("inf"), -float("inf"), 1.1e10])
def test_a_bad_time_drops_its_frame_alone(bad, caplog):
    times = [k / 30 for k in range(10)]
    times[3] = times[6] = bad
    pipeline = Pipeline([ListSource(with_times(times))], OraclePerceiver(), PromptSet.of("a"))
    indices = [result.frame.index for result in pipeline]
    assert indices == [0, 1, 2, 4, 5, 7, 8, 9]
    stats = pipeline.stats().streams["0"]
    assert (stats.captured, stats.published, stats.dropped) == (10, 8, {"bad time": 2})
    assert stats.restarts == 0
    assert len([r for r in caplog.records if "is dropped" in r.message]) == 1


def test_equal_times_are_no_restart():
    pipeline = Pipeline(
        [ListSource(with_times([0.0, 0.0, 0.1, 0.1]))], OraclePerceiver(), PromptSet.of("a")
    )
    assert len(list(pipeline)) == 4
    assert pipeline.stats().streams["0"].restarts == 0


def test_colours_stay_when_a_track_is_confirmed_also_after_a_restart():
    times = [k / 30 for k in (*range(4), *range(4))]
    source = ListSource(with_times(times))
    run = Pipeline([source], OraclePerceiver(found), PromptSet.of("car, dog"), tracker=IouTracker)
    candidates = [r.instances.candidate_ids.tolist() for r in run]
    assert candidates == [[1, 2]] * 4 + [[3, 4]] * 4
