"""The worst images: matches worked by hand, and the page of a run with known errors."""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from in_process import Silent
from typer.testing import CliRunner

from ape_stream.evaluation.benchmarks.judging.match import best_threshold, match
from ape_stream.evaluation.benchmarks.judging.page import NAMED, SIDE, page
from ape_stream.evaluation.benchmarks.judging.worst import Case, Mark, Worst
from ape_stream.evaluation.benchmarks.prediction import job as prediction_job
from ape_stream.evaluation.benchmarks.prediction.run import RunOptions, predict
from ape_stream.evaluation.benchmarks.readers.dataset import Dataset, Record
from ape_stream.evaluation.benchmarks.registry import select_tasks
from ape_stream.evaluation.benchmarks.scoring.records import (
    Classes,
    Federation,
    FoundRegions,
    Images,
    RegionTruth,
    TrueRegions,
)
from ape_stream.evaluation.benchmarks.truth import TruthPerceiver
from ape_stream.evaluation.command import app
from ape_stream.types import Instances, SemanticMap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.types import Frame, MapKind, Maps

INF = -np.inf


def truth(*rows: tuple[int, int, Sequence[float], bool], **more: Any) -> RegionTruth:
    images, classes, boxes, groups = zip(*rows, strict=True)
    regions = TrueRegions(
        np.array(images, np.int64),
        np.array(classes, np.int64),
        np.array(boxes, np.float64),
        np.prod(np.array(boxes, np.float64)[:, 2:], axis=1),
        np.array(groups, np.bool_),
    )
    ids = np.array([1, 2], np.int64)
    sizes = np.full((2, 2), 100, np.int32)
    return RegionTruth(Images(ids, sizes), Classes(np.arange(4), tuple("abcd")), regions, **more)


def found(*rows: tuple[int, int, Sequence[float], float]) -> FoundRegions:
    images, classes, boxes, scores = zip(*rows, strict=True)
    return FoundRegions(
        np.array(images, np.int64),
        np.array(classes, np.int32),
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
    )


BOX, SHIFTED, FAR, CROWD = (0, 0, 10, 10), (0, 2, 10, 10), (50, 50, 9, 9), (20, 20, 40, 40)


def test_the_best_detection_has_the_region_and_a_second_one_is_a_false_alarm() -> None:
    true = truth((1, 0, BOX, False), (1, 0, CROWD, True), (2, 0, BOX, False), (2, 1, BOX, False))
    given = found(
        (1, 0, SHIFTED, 0.6),  # of BOX, but a better one has it
        (1, 0, BOX, 0.9),
        (1, 0, (30, 30, 9, 9), 0.8),  # on a crowd: not judged
        (1, 0, (80, 80, 9, 9), 0.7),
        (2, 0, SHIFTED, 0.2),
        (2, 2, BOX, 0.1),  # of another class
    )
    matches = match(true, given, 0.5)
    assert matches.right.tolist() == [False, True, False, False, True, False]
    assert matches.alarm.tolist() == [True, False, False, True, False, True]
    assert matches.matched_at.tolist() == pytest.approx([0.9, INF, 0.2, INF])
    assert matches.wanted.tolist() == [True, False, True, True]
    # F1 at 0.9: 2 / (1 + 3); at 0.2: 4 / (4 + 3), which is more.
    assert best_threshold(given, matches) == pytest.approx(0.2)
    assert best_threshold(given, match(true, given, 1.0)) == pytest.approx(0.9)
    assert not match(true, given, 0.99).right[4]


def test_equal_scores_are_kept_together() -> None:
    true = truth((1, 0, BOX, False), (2, 0, BOX, False))
    same = found((1, 0, BOX, 0.5), (1, 1, FAR, 0.5), (1, 1, BOX, 0.5), (2, 0, BOX, 0.4))
    assert best_threshold(same, match(true, same, 0.5)) == pytest.approx(0.4)
    assert best_threshold(same, match(truth((1, 3, BOX, False)), same, 0.5)) == 1.0


def test_what_nobody_looked_for_is_not_judged() -> None:
    pairs = {"negative": [[1, 1]], "not_exhaustive": [[1, 0]], "positive": [[1, 3]]}
    federation = Federation(**{name: np.array(rows) for name, rows in pairs.items()})
    true = truth((1, 0, BOX, False), federation=federation)
    given = found((1, 0, BOX, 0.9), *((1, k, FAR, 0.5) for k in range(4)))
    matches = match(true, given, 0.5)
    assert matches.right.tolist() == [True, False, False, False, False]
    # Class 0 is not annotated to the end, 1 is verified absent, 2 unknown, 3 verified present.
    assert matches.alarm.tolist() == [False, False, True, False, True]


def test_a_page_names_some_errors_and_escapes_all_names(tmp_path: Path) -> None:
    marks = [Mark("missed", "<b>", (0.0, 0.0, 2.0, 2.0))]
    marks += [Mark("false alarm", "cat", (1.0, 1.0, 2.0, 2.0), 0.5)] * (NAMED + 4)
    case = Case(Record(1, tmp_path / "a&b.jpg", 1), len(marks), tuple(marks))
    image = np.zeros((8, 2000, 3), np.uint8)
    data = Dataset(
        task=select_tasks(["coco/val"])[0],
        classes=Classes(np.array([0]), ("a",)),
        prompts=("a",),
        records=(),
        load=lambda _: image,
    )
    text = "".join(page("<run>", [(data, Worst("coco/val", 9, (case,), 0.25))]))
    assert "<run>" not in text
    assert "<b>" not in text
    assert text.count("&lt;b&gt;") == 2
    assert text.count("<rect") == len(marks)
    assert "<li>5 more</li>" in text
    assert "a&amp;b.jpg: 1 missed, 24 false alarms, 0 right" in text
    jpeg = base64.b64decode(text.partition("base64,")[2].partition('"')[0])
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] == SIDE


class _Errs(TruthPerceiver):
    """Misses the last region of each image, and finds one more with a name for a tag."""

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        return [self._wrong(one) for one in super().perceive(frames)]

    def _wrong(self, one: Instances) -> Instances:
        if not len(one):
            return replace(one, masks=None)
        height, width = one.size
        extra = np.array([[width - 3, height - 3, width, height]], np.float32)
        kept = one.select(np.arange(len(one) - 1))
        return Instances(
            boxes=np.concatenate([kept.boxes, extra]),
            scores=np.full(len(one), 0.9, np.float32),
            prompt_ids=np.append(kept.prompt_ids, one.prompt_ids[-1:]),
            masks=None,
            size=one.size,
        )

    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        answers = super().perceive_with_maps(frames, wanted)
        return [(one, self._wrong_map(maps)) for one, maps in answers]

    def _wrong_map(self, maps: Maps) -> Maps:
        assert maps.semantic is not None
        ids = maps.semantic.ids.copy()
        ids[:4] = 0
        return replace(maps, semantic=SemanticMap(ids))


def test_the_page_of_a_run_shows_its_errors(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_job, "make", lambda _kind, _name, *, options: _Errs(**options))
    tasks = select_tasks(["coco/val"])
    semantic = next(one for one in select_tasks([]) if one.scorer == "semantic")
    given = {"root": str(root), "profile": "honest"}
    options = RunOptions([*tasks, semantic], root, tmp_path, model="truth", options=given)
    states = predict(options, Silent(), threading.Event())
    assert [state.reason for state in states if state.status != "done"] == []
    runner, arguments = CliRunner(), ["browse", str(tmp_path), "--root", str(root)]
    listed = runner.invoke(app, [*arguments, "--json"])
    assert listed.exit_code == 0, listed.output
    assert not (tmp_path / "worst.html").exists()
    regions, maps = sorted(
        json.loads(listed.stdout)["tasks"], key=lambda one: one["task"] != "coco/val"
    )
    assert {(one["missed"], one["false_alarms"]) for one in regions["worst"]} == {(1, 1)}
    assert regions["threshold"] == pytest.approx(0.9)
    assert all(0 < one["wrong_pixels"] < 1 for one in maps["worst"])
    assert runner.invoke(app, arguments).exit_code == 0
    text = (tmp_path / "worst.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == len(regions["worst"]) + len(maps["worst"])
    assert text.count('<rect class="missed"') == text.count('<rect class="alarm"') > 0
    assert len(re.findall(r'href="data:image/jpeg;base64,[^"]{100,}"', text)) == text.count("href=")
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    again = runner.invoke(app, arguments)
    assert again.exit_code != 0
    assert runner.invoke(app, [*arguments, "--overwrite", "--images", "1"]).exit_code == 0
    assert (tmp_path / "worst.html").read_text(encoding="utf-8").count("<figure>") == 2
