"""Which clip is next, and that the question costs the same for any number of clips."""

from dataclasses import dataclass

import pytest

from ape_stream.batch.clips import Clip
from ape_stream.batch.state import ClipState
from ape_stream.batch.waiting import Waiting


def states_of(count):
    return [ClipState(Clip(str(k), f"{k}.mp4", 1, "digest")) for k in range(count)]


def spans(waiting, workers, count):
    found = [waiting.next_span(workers) for _ in range(count)]
    return [one and (one[0].clip.name, one[1]) for one in found]


def test_many_clips_are_found_in_order_each_by_one_worker():
    assert spans(Waiting(states_of(3), 10), 1, 4) == [
        ("0", (0, None)), ("1", (0, None)), ("2", (0, None)), None
    ]  # fmt: skip


def test_few_clips_wait_for_their_length_and_are_made_in_parts():
    first, second = states = states_of(2)
    waiting = Waiting(states, 10)
    assert waiting.next_span(4) is None
    second.probed, second.expected = True, 75  # 8 shards
    assert spans(waiting, 4, 3) == [("1", (0, 4)), ("1", (4, None)), None]
    first.probed = True  # and nobody knows how long
    assert spans(waiting, 4, 2) == [("0", (0, None)), None]


def test_a_clip_that_failed_is_tried_again_first():
    states = states_of(3)
    waiting = Waiting(states, 10)
    assert spans(waiting, 1, 1) == [("0", (0, None))]
    states[0].status = "waiting"
    waiting.add(states[0])
    assert spans(waiting, 1, 2) == [("0", (0, None)), ("1", (0, None))]


def test_a_part_that_failed_is_made_again():
    (state,) = states_of(1)
    state.probed, state.expected = True, 40
    waiting = Waiting([state], 10)
    assert spans(waiting, 2, 3) == [("0", (0, 2)), ("0", (2, None)), None]
    state.spans.append((0, 2))
    waiting.add(state)
    assert spans(waiting, 2, 2) == [("0", (0, 2)), None]


def test_what_an_earlier_run_left_is_written_and_only_unknown_clips_are_probed():
    done, found, failed, known, new = states = states_of(5)
    done.status, found.status, failed.status, known.probed = "done", "found", "failed", True
    waiting = Waiting(states, 10)
    assert [waiting.next_found(), waiting.next_found()] == [found, None]
    assert [waiting.next_unknown(), waiting.next_unknown()] == [new, None]
    assert [one for one, _ in spans(waiting, 1, 2)] == ["3", "4"]


@dataclass
class Counted(ClipState):
    """Counts how often anybody looks at a clip."""

    looks = 0

    def __getattribute__(self, name):
        if name == "status":
            Counted.looks += 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("workers", [1, 4])
def test_no_event_looks_at_all_clips(workers):
    states = [Counted(state.clip, probed=True) for state in states_of(200)]
    waiting = Waiting(states, 10)
    Counted.looks = 0
    for _ in states:
        state, _ = waiting.next_span(workers)
        state.status = "found"
        waiting.add(state)
        assert waiting.next_found() is state
        state.status = "done"
    assert Counted.looks < (12 + 3 * workers) * len(states)
