"""Which images come when: against cases worked by hand, and over many draws."""

import numpy as np
import pytest

from ape_model.training.official.sampling import (
    EpochBatches,
    RowSchedule,
    repeat_factors,
    row_odds,
)


def test_an_image_is_repeated_for_its_rarest_class():
    # Class 0 is in all of four images, class 1 in two, class 2 in one; the last has none.
    shown = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [0, 2]], np.int32)
    found = repeat_factors(shown, 4, 0.5)
    np.testing.assert_allclose(found, [np.sqrt(2), 1, 1, 1])
    np.testing.assert_array_equal(repeat_factors(shown, 4, 0.0), np.ones(4))
    np.testing.assert_allclose(repeat_factors(shown, 4, 1.0)[1], np.sqrt(2))


def test_shares_of_the_data_sets():
    # Nine sets of D: five of 1 / 5.4 = 18.5 %, four of 1.85 %.
    ratios = [1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]
    factors = [np.full(3, 2.0), *[np.ones(7)] * 8]
    separate = row_odds("separate", ratios, factors)
    np.testing.assert_allclose(separate, [0.185185] * 5 + [0.0185185] * 4, rtol=1e-4)
    # In one loader, a set whose images are repeated twice gets twice its share, of any size.
    mixed = row_odds("mixed", ratios, factors)
    assert mixed[0] == pytest.approx(2 * mixed[1])
    assert mixed.sum() == pytest.approx(1)


def test_the_data_sets_of_a_run_follow_their_odds():
    schedule = RowSchedule(np.array([0.7, 0.3]), 10_000, seed=1)
    assert np.mean(schedule.row == 0) == pytest.approx(0.7, abs=0.02)
    for row in (0, 1):
        turns = schedule.turn[schedule.row == row]
        assert turns.tolist() == list(range(len(turns)))
    shorter = RowSchedule(np.array([0.7, 0.3]), 10_000, seed=1)
    np.testing.assert_array_equal(shorter.row, schedule.row)
    assert (RowSchedule(np.array([0.7, 0.3]), 10_000, seed=2).row != schedule.row).any()


def test_an_epoch_has_each_image_as_often_as_its_factor_says():
    factors = np.array([1.0, 2.5, 1.0, 1.0])
    batches = EpochBatches(factors, np.ones(4, bool), 1, (0, 0))
    drawn = np.array([batches[k][0] for k in range(550)])
    counts = np.bincount(drawn)
    assert counts[1] / counts[0] == pytest.approx(2.5, abs=0.1)
    assert counts.max() - counts[[0, 2, 3]].min() < 160
    assert len({tuple(drawn[k : k + 4]) for k in range(0, 40, 4)}) > 1  # other orders


def test_a_batch_is_wide_or_high_and_the_same_at_every_call():
    wide = np.array([True] * 7 + [False] * 5)
    batches = EpochBatches(np.ones(12), wide, 3, (3, 1))
    found = [batches[k].copy() for k in range(30)]
    assert all(len(set(wide[batch])) == 1 for batch in found)
    assert {bool(wide[batch[0]]) for batch in found} == {True, False}
    again = EpochBatches(np.ones(12), wide, 3, (3, 1))
    for turn in (29, 0, 11):  # in any order, as a run that goes on
        np.testing.assert_array_equal(again[turn], found[turn])


def test_a_set_smaller_than_a_batch_is_repeated():
    batches = EpochBatches(np.ones(2), np.array([True, False]), 4, (0,))
    assert sorted(batches[0].tolist() + batches[1].tolist()) == [0] * 4 + [1] * 4
