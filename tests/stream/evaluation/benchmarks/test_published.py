"""Published figures: every one belongs to a task, has a name of ours and a source."""

from collections import Counter
from statistics import fmean

import pytest

from ape_stream.evaluation.benchmarks.published import published
from ape_stream.evaluation.benchmarks.registry import all_tasks, groups

FIGURES = {
    "coco": {"box/AP", "mask/AP"},
    "lvis": {"box/AP", "mask/AP", "box/APr", "box/APc", "box/APf"},
    "semantic": {"mIoU"},
    "panoptic": {"PQ"},
    "referring": {"box/P@0.5"},
    "phrases": {"box/R@1", "box/R@5", "box/R@10"},
}


@pytest.mark.parametrize("one", published(), ids=lambda one: f"{one.model}, {one.task}")
def test_a_figure_belongs_to_a_task(one):
    if one.task in groups():
        assert one.figure == "box/AP mean"
    else:
        assert one.figure in FIGURES[all_tasks()[one.task].scorer]
    assert 0 <= one.value <= 100
    assert one.source.url.startswith("https://")


def test_no_source_gives_a_figure_twice():
    keys = Counter((one.model, one.task, one.figure, one.source.url) for one in published())
    assert [key for key, count in keys.items() if count > 1] == []


def test_the_mean_of_a_suite_is_that_of_its_sets():
    values = {(one.model, one.task): one.value for one in published()}
    checked = 0
    for one in published():
        sets = groups().get(one.task, ())
        if one.figure == "box/AP mean" and all((one.model, name) in values for name in sets):
            own = fmean(values[one.model, name] for name in sets)
            assert own == pytest.approx(one.value, abs=0.1)
            checked += 1
    assert checked == 1  # the only suite that a source gives set by set, with a mean that fits
