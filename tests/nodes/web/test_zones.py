import numpy as np
import pytest

from ape_nodes.web.prompts import ConflictError
from ape_nodes.web.protocol import Zone
from ape_nodes.web.zones.counting import MAX_ZONES, Zones
from ape_stream.errors import UsageError
from ape_stream.result import FrameResult
from ape_stream.types import Frame, Instances, Mask, PromptSet

SIZE = (100, 200)
PROMPTS = PromptSet.of("cup, person")
LEFT = Zone("left", "area", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))
MIDDLE = Zone("middle", "line", ((0.5, 0.0), (0.5, 1.0)))


def result(time_s, *things, segment=0):
    """Things as (x, track, prompt id): squares of 10 pixels at y 40."""
    boxes = np.array([(x, 40, x + 10, 50) for x, _, _ in things], np.float32).reshape(-1, 4)
    found = Instances(
        boxes=boxes,
        scores=np.full(len(things), 0.9, np.float32),
        prompt_ids=np.array([prompt for _, _, prompt in things], np.int64),
        masks=tuple(Mask(np.ones((10, 10), bool), int(x), 40) for x, _, _ in things),
        size=SIZE,
        track_ids=np.array([track for _, track, _ in things], np.int64),
    )
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), 0, time_s, "cam", segment=segment)
    return FrameResult(frame, found, PROMPTS)


def events_of(zones, results):
    return [
        (event.event, event.zone, event.prompt, event.track, event.time, event.seconds)
        for one in results
        for event in zones.update(one)
    ]


def test_who_enters_and_leaves_an_area_is_counted_with_the_time_inside():
    zones = Zones("cam")
    zones.replace([LEFT], 1)
    path = [(150, 0.0), (60, 1.0), (50, 2.5), (150, 4.0)]
    happened = events_of(zones, [result(t, (x, 7, 1)) for x, t in path])
    assert happened == [
        ("entered", "left", "person", 7, 1.0, None),
        ("left", "left", "person", 7, 4.0, 3.0),
    ]
    assert zones.counts() == {"left": {"inside": 0, "entered": 1, "left": 1, "mean_s": 3.0}}


def test_a_lost_track_left_when_it_was_last_seen():
    zones = Zones("cam")
    zones.replace([LEFT], 1)
    assert events_of(zones, [result(0.0, (20, 1, 0)), result(0.5), result(0.9)]) == [
        ("entered", "left", "cup", 1, 0.0, None)
    ]
    assert zones.counts()["left"]["inside"] == 1
    assert events_of(zones, [result(1.2)]) == [("left", "left", "cup", 1, 0.0, 0.0)]


def test_a_line_is_crossed_each_way():
    """In is to the left of the line: of one that goes down, to the right in the image."""
    zones = Zones("cam")
    zones.replace([MIDDLE], 1)
    path = [60, 70, 120, 130, 60, 50]
    happened = events_of(zones, [result(k, (x, 3, 0)) for k, x in enumerate(path)])
    assert [(name, time) for name, _, _, _, time, _ in happened] == [
        ("crossed_in", 2), ("crossed_out", 4)
    ]  # fmt: skip
    assert zones.counts() == {"middle": {"in": 1, "out": 1}}


def test_only_confirmed_tracks_of_the_wanted_prompts_count():
    zones = Zones("cam")
    zones.replace([Zone("people", "area", LEFT.points, ("person",))], 1)
    assert events_of(zones, [result(0, (20, 0, 1), (30, 5, 0), (40, 6, 1))]) == [
        ("entered", "people", "person", 6, 0, None)
    ]


def test_a_new_segment_ends_all_visits():
    zones = Zones("cam")
    zones.replace([LEFT], 1)
    happened = events_of(
        zones, [result(0, (20, 1, 0)), result(2, (20, 1, 0)), result(9, (20, 2, 0), segment=1)]
    )
    assert happened[1:] == [
        ("left", "left", "cup", 1, 2, 2),
        ("entered", "left", "cup", 2, 9, None),
    ]


def test_a_zone_that_stays_goes_on_counting():
    zones = Zones("cam")
    zones.replace([LEFT], 1)
    zones.update(result(0, (20, 1, 0)))
    zones.replace([MIDDLE, LEFT], 2)
    assert zones.counts()["left"]["entered"] == 1
    assert events_of(zones, [result(1, (20, 1, 0))]) == []
    zones.replace([], 3)
    assert zones.counts() is None


def test_of_two_changes_from_one_revision_the_second_is_refused():
    zones = Zones("cam")
    zones.replace([LEFT], 1)
    with pytest.raises(ConflictError):
        zones.replace([], 1)
    assert zones.zones == [LEFT]


def test_names_differ_and_there_are_not_too_many():
    zones = Zones("cam")
    with pytest.raises(UsageError, match="same name"):
        zones.replace([LEFT, LEFT], 1)
    many = [Zone(str(k), "line", MIDDLE.points) for k in range(MAX_ZONES + 1)]
    with pytest.raises(UsageError, match="at most"):
        zones.replace(many, 1)
