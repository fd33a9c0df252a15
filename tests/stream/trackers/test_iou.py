"""Tracking: cases worked by hand, and a generated scene whose ids are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.errors import ConfigError, PluginError
from ape_stream.protocols import Tracker
from ape_stream.trackers.adapter import TrackersTracker
from ape_stream.trackers.iou import IouTracker, box_iou
from ape_stream.types import Instances, Mask

SIZE = (200, 300)


def found(*regions: tuple[float, ...]) -> Instances:
    """Regions as (x, y, width, height, prompt id = 0, score = 0.9)."""
    rows = [(*region, *(0, 0.9)[len(region) - 4 :]) for region in regions]
    return Instances(
        boxes=np.array([(x, y, x + w, y + h) for x, y, w, h, *_ in rows], np.float32).reshape(
            -1, 4
        ),
        scores=np.array([row[5] for row in rows], np.float32),
        prompt_ids=np.array([row[4] for row in rows], np.int64),
        masks=tuple(
            Mask(np.ones((int(h), int(w)), np.bool_), int(x), int(y)) for x, y, w, h, *_ in rows
        ),
        size=SIZE,
    )


def ids(tracker, time_s, *regions):
    return tracker.update(found(*regions), time_s).track_ids.tolist()


# --------------------------------------------------------------------------------------- overlap


def test_box_iou_by_hand():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[50 / 150, 1, 0, 0], [0, 0, 0, 0]], rtol=1e-6)
    assert box_iou(a[:0], b).shape == (0, 4)


# ---------------------------------------------------------------------------------- life of an id


def test_a_track_gets_its_id_at_the_second_sighting_and_keeps_it():
    tracker = IouTracker()
    assert isinstance(tracker, Tracker)
    assert ids(tracker, 0.0, (10, 10, 40, 40)) == [0]
    assert ids(tracker, 0.1, (12, 10, 40, 40)) == [1]
    assert ids(tracker, 0.2, (14, 10, 40, 40)) == [1]


def test_one_hit_confirms_at_once_when_asked():
    tracker = IouTracker(min_hits=1)
    assert ids(tracker, 0.0, (10, 10, 40, 40), (100, 10, 40, 40)) == [1, 2]


def test_confirmation_can_ask_for_seconds_too():
    tracker = IouTracker(min_hits=2, confirm_s=0.5)
    region = (10, 10, 40, 40)
    assert [ids(tracker, t, region)[0] for t in (0.0, 0.2, 0.4, 0.5, 0.6)] == [0, 0, 0, 1, 1]


def test_a_tentative_track_ends_with_its_first_miss():
    tracker = IouTracker(min_hits=3)
    region = (10, 10, 40, 40)
    seen = [ids(tracker, 0.0, region), ids(tracker, 0.1, region), ids(tracker, 0.2)]
    seen += [ids(tracker, t, region) for t in (0.3, 0.4, 0.5)]
    assert seen == [[0], [0], [], [0], [0], [1]]


@pytest.mark.parametrize(("gap_s", "expected"), [(0.9, [1]), (1.0, [1]), (1.1, [0])])
def test_a_lost_track_comes_back_within_its_seconds(gap_s, expected):
    tracker = IouTracker(max_lost_s=1.0)
    region = (10, 10, 40, 40)
    ids(tracker, 0.0, region)
    ids(tracker, 1.0, region)
    ids(tracker, 1.5)  # seen by nobody: however many frames pass, seconds count
    ids(tracker, 1.6)
    assert ids(tracker, 1.0 + gap_s, region) == expected


def test_an_id_is_never_given_again():
    tracker = IouTracker(min_hits=1, max_lost_s=0.2)
    assert ids(tracker, 0.0, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 1.0, (10, 10, 40, 40)) == [2]
    assert ids(tracker, 2.0, (10, 10, 40, 40), (100, 100, 20, 20)) == [3, 4]


def test_every_tracker_counts_for_itself():
    first, second = IouTracker(min_hits=1), IouTracker(min_hits=1)
    assert ids(first, 0.0, (10, 10, 40, 40), (100, 10, 40, 40)) == [1, 2]
    assert ids(second, 0.0, (10, 10, 40, 40)) == [1]


# ------------------------------------------------------------------------------------ association


def test_regions_of_another_prompt_are_never_the_same_object():
    tracker = IouTracker(min_hits=1)
    assert ids(tracker, 0.0, (10, 10, 40, 40, 0)) == [1]
    assert ids(tracker, 0.1, (10, 10, 40, 40, 1)) == [2]
    assert ids(tracker, 0.2, (10, 10, 40, 40, 1), (10, 10, 40, 40, 0)) == [2, 1]


def test_the_order_of_regions_does_not_matter():
    tracker = IouTracker(min_hits=1)
    ids(tracker, 0.0, (10, 10, 40, 40), (100, 10, 40, 40))
    assert ids(tracker, 0.1, (101, 10, 40, 40), (11, 10, 40, 40)) == [2, 1]


def test_the_sum_of_overlaps_decides_not_the_first_come():
    # Track A overlaps both regions, track B only the one that A likes best.
    tracker = IouTracker(min_hits=1, min_iou=0.2)
    ids(tracker, 0.0, (40, 10, 40, 40), (65, 10, 40, 40))
    # If A took region 0 (.54), B would have nothing: with region 1 it has 3 columns in common.
    overlaps = box_iou(
        found((40, 10, 40, 40), (65, 10, 40, 40)).boxes,
        found((52, 10, 40, 40), (28, 10, 40, 40)).boxes,
    )
    assert overlaps[0, 0] == pytest.approx(overlaps[0, 1], abs=0.01)
    assert ids(tracker, 0.1, (52, 10, 40, 40), (28, 10, 40, 40)) == [2, 1]


def test_an_unusable_pair_does_not_cost_a_good_one():
    # Region 0 is 60 % of track A and just under the limit for B; region 1 is near nothing but A.
    tracker = IouTracker(min_hits=1, min_iou=0.5)
    ids(tracker, 0.0, (50, 10, 40, 40), (75, 10, 40, 40))
    # .6, B-0: .45 (unusable), A-1: .45 (unusable); with them A-1 + B-0 = .9 would win.
    assert ids(tracker, 0.1, (60, 10, 40, 40), (35, 10, 40, 40)) == [1, 3]


def test_a_track_is_looked_for_where_it_moves():
    # 25 px a frame: after a gap of four frames the old box and the new one are apart.
    positions = {0.0: 10, 0.1: 35, 0.2: 60, 0.3: 85, 0.8: 210}
    tracker = IouTracker()
    seen = [ids(tracker, t, (x, 50, 50, 50))[0] for t, x in positions.items()]
    assert seen == [0, 1, 1, 1, 1]


def test_a_weak_region_continues_a_track_but_starts_none():
    tracker = IouTracker(min_hits=1, start_score=0.5)
    assert ids(tracker, 0.0, (10, 10, 40, 40, 0, 0.3)) == [0]
    assert ids(tracker, 0.1, (10, 10, 40, 40, 0, 0.9)) == [1]
    assert ids(tracker, 0.2, (12, 10, 40, 40, 0, 0.3)) == [1]
    # The strong one chooses first, even where the weak one fits better.
    assert ids(tracker, 0.3, (12, 10, 40, 40, 0, 0.3), (20, 10, 40, 40, 0, 0.9)) == [0, 1]


def test_masks_distinguish_what_boxes_cannot():
    # Two diagonal bars of one box: an X. Their masks cross in the middle only.
    bar = np.eye(60, dtype=np.bool_)
    bar |= np.roll(bar, 1, axis=1) | np.roll(bar, -1, axis=1)
    cross = [masks.crop(np.pad(b, 20)) for b in (bar, bar[:, ::-1])]

    def scene(order):
        return Instances(
            boxes=np.tile(np.array([[20, 20, 80, 80]], np.float32), (2, 1)),
            scores=np.ones(2, np.float32),
            prompt_ids=np.zeros(2, np.int64),
            masks=tuple(cross[k] for k in order),
            size=(100, 100),
        )

    tracker = IouTracker(overlap="mask", min_hits=1)
    assert tracker.update(scene([0, 1]), 0.0).track_ids.tolist() == [1, 2]
    assert tracker.update(scene([1, 0]), 0.1).track_ids.tolist() == [2, 1]


# ----------------------------------------------------------------------------------- a known scene


@pytest.mark.parametrize("overlap", ["box", "mask"])
@pytest.mark.parametrize("make", [IouTracker, TrackersTracker])
def test_a_generated_scene_keeps_its_known_ids(make, overlap):
    """Four pairs of objects cross in their row, one prompt each; shuffled, with gaps in time."""
    if make is TrackersTracker:
        if overlap == "mask":
            pytest.skip("they compare boxes alone")
        tracker = make(minimum_consecutive_frames=1)
    else:
        tracker = make(overlap=overlap, min_hits=1)
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.choice([1 / 30, 1 / 30, 3 / 30], size=60))
    given: dict[int, set[int]] = {k: set() for k in range(8)}
    for time_s in times.tolist():
        order = rng.permutation(8)
        x = (10 + 90 * time_s, 270 - 90 * time_s)
        regions = [(max(x[k % 2], 0), 5 + 24 * (k // 2), 30, 20, k % 2) for k in order]
        for k, number in zip(order.tolist(), ids(tracker, time_s, *regions), strict=True):
            given[k].add(number)
    tracks = [numbers - {0} for numbers in given.values()]
    assert all(len(numbers) == 1 for numbers in tracks)
    assert sorted(min(numbers) for numbers in tracks) == list(range(1, 9))


def test_nothing_found_is_tracked_as_nothing():
    tracker = IouTracker()
    result = tracker.update(Instances.empty(SIZE), 0.0)
    assert result.track_ids.shape == (0,)
    assert result.track_ids.dtype == np.int64


def test_a_track_has_its_id_as_a_candidate_from_its_first_region_on():
    tracker = IouTracker(min_hits=3)
    seen = [
        tracker.update(found((10 + k, 10, 40, 40), (150, 10, 40, 40)), k / 30) for k in range(4)
    ]
    assert [one.track_ids.tolist() for one in seen] == [[0, 0], [0, 0], [1, 2], [1, 2]]
    assert [one.candidate_ids.tolist() for one in seen] == [[1, 2]] * 4


def test_ids_of_tracks_that_were_never_confirmed_are_given_to_others():
    tracker = IouTracker()
    for step in range(20):  # regions that flicker, each seen once
        assert ids(tracker, step / 10, (10 + 100 * (step % 2), 10, 40, 40)) == [0]
    ids(tracker, 2.0, (10, 100, 40, 40))
    assert ids(tracker, 2.1, (10, 100, 40, 40)) == [1]


# ------------------------------------------------------------------------------------- bad values


def test_a_time_that_steps_back_ends_all_tracks_and_ids_go_on():
    tracker = IouTracker()
    ids(tracker, 1.0, (1, 1, 9, 9))
    assert ids(tracker, 1.0, (1, 1, 9, 9)) == [1]
    assert ids(tracker, 0.5, (1, 1, 9, 9)) == [0]
    assert ids(tracker, 0.6, (1, 1, 9, 9)) == [2]


@pytest.mark.parametrize("time_s", [float("nan"), float("inf")])
def test_a_time_that_is_not_finite_is_refused(time_s):
    tracker = IouTracker()
    with pytest.raises(ValueError, match="the time of a frame is"):
        ids(tracker, time_s)
    ids(tracker, 0.0, (1, 1, 9, 9))
    assert ids(tracker, 0.1, (1, 1, 9, 9)) == [1]


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "area"},
        {"min_iou": 0.0},
        {"min_iou": 1.5},
        {"min_hits": 0},
        {"confirm_s": -1},
        {"max_lost_s": -0.1},
        {"start_score": 2},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        IouTracker(**options)


# ---------------------------------------------------------------------------- the outside trackers


def test_outside_trackers_keep_prompts_apart():
    tracker = TrackersTracker(algorithm="sort", minimum_consecutive_frames=1)
    assert isinstance(tracker, Tracker)
    for step in range(3):
        kept = ids(tracker, step / 30, (10, 10, 40, 40, 0))
    changed = ids(tracker, 3 / 30, (10, 10, 40, 40, 1))
    for step in range(4, 7):
        changed = ids(tracker, step / 30, (10, 10, 40, 40, 1))
    assert kept == [1]
    assert changed == [2]


@pytest.mark.parametrize("algorithm", ["bytetrack", "cbiou", "ocsort", "sort"])
def test_every_outside_algorithm_runs(algorithm):
    tracker = TrackersTracker(algorithm=algorithm)
    seen = [ids(tracker, k / 30, (10 + k, 10, 40, 40), (100, 10, 40, 40)) for k in range(6)]
    assert sorted(seen[-1]) == [1, 2]
    assert ids(tracker, 0.3) == []


def test_outside_trackers_say_what_is_wrong(monkeypatch):
    with pytest.raises(ConfigError, match="bytetrack, cbiou, ocsort, sort"):
        TrackersTracker(algorithm="deepsort")
    with pytest.raises(ConfigError, match="lost_frames"):
        TrackersTracker(algorithm="sort", lost_frames=3)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(PluginError, match=r"pip install 'ape-stream\[trackers\]'"):
        TrackersTracker()


def test_outside_trackers_forget_prompts_that_were_replaced():
    tracker = TrackersTracker(algorithm="sort", minimum_consecutive_frames=1)
    for prompt in range(50):
        start = 20.0 * prompt
        for step in range(3):
            last = ids(tracker, start + step / 30, (10, 10, 40, 40, prompt))
    assert last == [50]  # never an id twice
    assert len(tracker._by_prompt) <= 31
