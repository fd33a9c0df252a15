"""Figures of the evaluation: perfect, blind and hand-worked answers."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from ape_model.world import Instance, Scene, World
from ape_stream import plugins
from ape_stream.evaluation import EvaluationPlan, evaluate
from ape_stream.evaluation.command import app
from ape_stream.evaluation.precision import (
    ImageResult,
    average_precision,
    class_agnostic_recall,
    precision_recall,
)
from ape_stream.evaluation.tracks import TrackLog, score_tracks
from ape_stream.masks import boxes, crop
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Instances, PromptKind

PLAN = EvaluationPlan(seed=50, scenes=4, sizes=((128, 128), (96, 160)), videos=1, frames=40)


class Recording:
    """The world, and a record of every image that it drew."""

    def __init__(self):
        self.world = World()
        self.drawn = {}
        self.meant = {}

    def __getattr__(self, name):
        return getattr(self.world, name)

    def _note(self, scene):
        self.drawn[scene.image.tobytes()] = scene
        return scene

    def scene(self, seed, size):
        return self._note(self.world.scene(seed, size))

    def sentence_scene(self, seed, size):
        spoken = self.world.sentence_scene(seed, size)
        self._note(spoken.scene)
        for phrase in spoken.phrases:
            self.meant[spoken.scene.image.tobytes(), phrase.text] = phrase
        return spoken

    def video(self, seed, size, **options):
        video, note = self.world.video(seed, size, **options), self._note

        class Noted:
            def scene(self, index):
                return note(video.scene(index))

        return Noted()


@dataclass
class Oracle:
    """Knows the truth, or is blind, or answers everything with the first region it sees."""

    world: Recording
    fusing: bool = True
    blind: bool = False
    everywhere: bool = False

    def prepare(self, prompts):
        self.prompts = prompts

    def perceive(self, frames):
        return [self._answer(frame) for frame in frames]

    def _answer(self, frame):
        key = frame.image.tobytes()
        scene = self.world.drawn[key]
        found = []
        for p, prompt in enumerate(self.prompts):
            if self.everywhere:
                found.append((p, scene.mask(scene.instances[0])))
            elif not self.blind:
                found += [(p, mask) for mask in self._masks(key, scene, prompt)]
        if not found:
            return Instances.empty(frame.size)
        masks = tuple(crop(mask) for _, mask in found)
        ids = np.array([p for p, _ in found], np.int64)
        scores = np.full(len(found), 0.9, np.float32)
        return Instances(boxes(masks), scores, ids, masks, frame.size)

    def _masks(self, key, scene, prompt):
        phrase = self.world.meant.get((key, prompt.text))
        if phrase is not None:
            fused = self.fusing and prompt.kind is PromptKind.SENTENCE
            yield scene.instance_map == (phrase.target if fused else phrase.distractors[0])
        for named in self.world.prompts:
            if named.text == prompt.text:
                yield from (scene.mask(i) for i in scene.instances if i.class_id in named.class_ids)


def _report(**oracle):
    world = Recording()
    return evaluate(Oracle(world, **oracle), world, PLAN, IouTracker)


def test_an_oracle_scores_one_everywhere():
    report = _report()
    one = ("things_ap50", "stuff_ap50", "mask_ap", "agnostic_recall50", "precision", "recall")
    for name in (*one, "synonym_ap50", "sentence_accuracy"):
        assert report[name] == pytest.approx(1.0), name
    assert report["absent_fp_per_image"] == 0
    assert report["unknown_word_rate"] == 0
    assert report["sentence_accuracy_unfused"] == 0
    assert report["sentences_at_threshold"] == {"right": 1, "nothing": 0, "only_wrong": 0}
    assert report["track_idf1"] > 0.95  # the tracker confirms at the second sighting
    assert report["track_mota"] > 0.9
    assert report["words"] == len(World().names)
    assert report["fps"] > 0
    assert set(report["stage_ms"]) == {"prepare", "perceive", "render", "track"}
    json.dumps(report)


def test_figures_come_by_size_and_for_calls_of_mixed_sizes():
    report = _report()
    assert list(report["by_size"]) == ["128x128", "160x96", "mixed"]
    for figures in report["by_size"].values():
        assert set(figures) == {
            "things_ap50", "stuff_ap50", "ap50", "mask_ap", "precision", "recall",
        }  # fmt: skip
        assert figures["ap50"] == pytest.approx(1.0)
    assert report["size"] == "128x128, 160x96"


def test_a_model_that_fails_on_one_shape_is_found_out():
    class Square(Oracle):
        """Finds nothing where its input is padded: in wide images and in a call's smaller ones."""

        def perceive(self, frames):
            tallest = max(frame.size[0] for frame in frames)
            padded = [f.size[0] < tallest or f.size[0] != f.size[1] for f in frames]
            found = super().perceive(frames)
            return [
                Instances.empty(f.size) if p else one
                for f, p, one in zip(frames, padded, found, strict=True)
            ]

    world = Recording()
    by_size = evaluate(Square(world), world, PLAN, IouTracker)["by_size"]
    assert by_size["128x128"]["recall"] == pytest.approx(1.0)
    assert by_size["160x96"]["recall"] == 0
    assert 0 < by_size["mixed"]["recall"] < 1


def test_one_size_has_no_figures_by_size():
    world = Recording()
    plan = EvaluationPlan(seed=50, scenes=1, sizes=((128, 128),), videos=0)
    assert "by_size" not in evaluate(Oracle(world), world, plan, IouTracker)


def test_tracks_confirmed_at_once_score_one():
    world = Recording()
    tracker = lambda: IouTracker(min_hits=1)  # noqa: E731
    report = evaluate(Oracle(world), world, PLAN, tracker)
    assert report["track_idf1"] == pytest.approx(1.0)
    assert report["track_mota"] == pytest.approx(1.0)
    assert report["track_switches"] == 0


def test_a_blind_model_scores_zero_and_says_nothing_false():
    report = _report(blind=True)
    for name in (
        "things_ap50", "stuff_ap50", "mask_ap", "agnostic_recall50", "precision", "recall",
        "synonym_ap50", "sentence_accuracy", "sentence_accuracy_unfused", "track_idf1",
        "track_mota", "absent_fp_per_image", "unknown_word_rate",
    ):  # fmt: skip
        assert report[name] == 0, name
    assert report["sentences_at_threshold"] == {"right": 0, "nothing": 1, "only_wrong": 0}
    # One that takes sentences for names finds the other thing of that name.
    unfused = _report(fusing=False)["sentences_at_threshold"]
    assert unfused == {"right": 0, "nothing": 0, "only_wrong": 1}


def test_a_model_that_says_yes_to_all_is_found_out():
    report = _report(everywhere=True)
    assert report["absent_fp_per_image"] == 100
    assert report["unknown_word_rate"] == 1
    assert report["precision"] < 0.05


def test_the_same_plan_gives_the_same_figures():
    skip = {"fps", "stage_ms"}
    one, again = _report(), _report()
    assert {k: v for k, v in one.items() if k not in skip} == {
        k: v for k, v in again.items() if k not in skip
    }


# ------------------------------------------------------------------------- worked by hand


def _truth(*, ignored=False):
    """Class 0 at columns 0..9, class 1 at 10..19, in a 10 x 30 image; the rest is class 2."""
    ids = np.full((10, 30), 1, np.int32)
    ids[:, :10], ids[:, 10:20] = 2, 3
    regions = [
        Instance(1, 2, True, (20, 0, 30, 10), 100, 0.3),
        Instance(2, 0, False, (0, 0, 10, 10), 100, 1.0),
        Instance(3, 1, False, (10, 0, 20, 10), 100, 1.0),
    ]
    asked = tuple(regions[:2] if ignored else regions)
    return Scene(np.zeros((10, 30, 3), np.uint8), ids, asked, tuple(regions[2:] if ignored else ()))


def _found(*items, tracks=None):
    """Regions as (class, first column, last column, score)."""
    masks = []
    for _, first, last, _ in items:
        dense = np.zeros((10, 30), np.bool_)
        dense[:, first:last] = True
        masks.append(crop(dense))
    return Instances(
        boxes(masks),
        np.array([item[3] for item in items], np.float32),
        np.array([item[0] for item in items], np.int64),
        tuple(masks),
        (10, 30),
        None if tracks is None else np.array(tracks, np.int64),
    )


def _judged(*items, ignored=False):
    return ImageResult.of(_truth(ignored=ignored), _found(*items))


def test_average_precision_by_hand():
    # Class 0: the better-scored region is wrong, the second right: precision 1/2 at all recalls.
    # Class 1: IoU 8/10, right up to 0.80 (7 of the 10 thresholds). Class 2: not found.
    average = average_precision([_judged((0, 20, 30, 0.9), (0, 0, 10, 0.8), (1, 10, 18, 0.5))], 4)
    np.testing.assert_allclose(average.ap50, [0.5, 1.0, 0.0, np.nan], atol=1e-9)
    np.testing.assert_allclose(average.ap, [0.5, 0.7, 0.0, np.nan], atol=1e-9)
    assert average.mean50() == pytest.approx(0.5)
    assert average.mean50(slice(0, 2)) == pytest.approx(0.75)
    assert average.mean() == pytest.approx(0.4)


def test_precision_and_recall_by_hand():
    found = [_judged((0, 0, 10, 0.9), (1, 0, 10, 0.9), (0, 20, 30, 0.6))]
    precision, recall = precision_recall(found, 3)
    assert precision == pytest.approx(1 / 3)
    assert recall == pytest.approx(1 / 3)


def test_agnostic_recall_forgives_names_alone():
    assert class_agnostic_recall([_judged((1, 0, 10, 0.9), (0, 10, 20, 0.1))], 3) == pytest.approx(
        2 / 3
    )


def test_hundreds_of_weak_regions_change_nothing():
    weak = [(0, 20, 30, 0.1)] * 300
    average = average_precision([_judged((0, 0, 10, 0.9), *weak)], 3)
    assert average.ap50[0] == pytest.approx(1.0)
    assert class_agnostic_recall([_judged((0, 0, 10, 0.9), *weak)], 3) == pytest.approx(2 / 3)


def test_what_shows_too_little_may_be_found_or_not():
    both = _judged((0, 0, 10, 0.9), (1, 10, 20, 0.9), (2, 20, 30, 0.9), ignored=True)
    left_out = _judged((0, 0, 10, 0.9), (2, 20, 30, 0.9), ignored=True)
    for judged in (both, left_out):
        assert precision_recall([judged], 3) == (1.0, 1.0)


def test_tracks_by_hand():
    # Four frames, two things; thing 3 changes its track after two frames.
    log = TrackLog()
    for second in (8, 8, 9, 9):
        log.add(_truth(), _found((0, 0, 10, 0.9), (1, 10, 20, 0.9), tracks=[7, second]))
    score = score_tracks([log])
    assert score.switches == 1
    assert score.mota == pytest.approx(1 - 1 / 8)
    assert score.idf1 == pytest.approx(6 / 8)


def test_a_track_of_another_class_is_no_match_and_an_unconfirmed_one_counts_not():
    log = TrackLog()
    log.add(_truth(), _found((1, 0, 10, 0.9), (1, 10, 20, 0.9), tracks=[7, 0]))
    assert log.overlaps[0].tolist() == [[0.0], [0.0]]


def test_a_track_on_what_shows_too_little_counts_neither_way():
    log = TrackLog()
    log.add(_truth(ignored=True), _found((0, 0, 10, 0.9), (1, 10, 20, 0.9), tracks=[7, 8]))
    assert log.track_ids[0].tolist() == [7]
    assert score_tracks([log]).mota == pytest.approx(1.0)


def test_regions_without_track_ids_are_refused():
    with pytest.raises(ValueError, match="track ids"):
        TrackLog().add(_truth(), _found((0, 0, 10, 0.9)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenes": 0},
        {"videos": -1},
        {"frames": 0},
        {"fps": 0},
        {"seed": -1},
        {"sizes": ()},
        {"sizes": ((8, 8), (8, 8))},
    ],
)
def test_a_plan_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        EvaluationPlan(**wrong)


# ----------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch):
    world = Recording()
    makers = {
        "perceivers": lambda **_: Oracle(world),
        "worlds": lambda **_: world,
        "trackers": lambda **_: IouTracker(),
    }
    monkeypatch.setattr(plugins, "make", lambda group, _name, *, options: makers[group](**options))
    return CliRunner()


def test_command_prints_one_json_line(command):
    done = command.invoke(
        app, ["synthetic", "--scenes", "2", "--size", "128x128", "--videos", "0", "--json"]
    )
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.strip().splitlines()
    assert json.loads(line)["things_ap50"] == pytest.approx(1.0)


def test_command_prints_a_table(command):
    done = command.invoke(app, ["synthetic", "--scenes", "1", "--size", "128x128", "--videos", "0"])
    assert done.exit_code == 0, done.output
    assert "things_ap50" in done.stdout


def test_command_judges_several_sizes(command):
    sizes = ["--size", "128x128", "--size", "160x96"]
    done = command.invoke(app, ["synthetic", "--scenes", "2", *sizes, "--videos", "0", "--json"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)["by_size"]) == ["128x128", "160x96", "mixed"]
    done = command.invoke(app, ["synthetic", "--scenes", "2", *sizes, "--videos", "0"])
    assert "mixed" in done.stdout


def test_a_size_that_sentences_cannot_have_is_refused_before_anything_is_judged(command):
    done = command.invoke(app, ["synthetic", "--scenes", "1", "--size", "96x64", "--videos", "0"])
    assert done.exit_code == 2
    assert "96x96 pixels or more" in " ".join(done.output.replace("│", " ").split())
    assert "judging" not in done.output


@pytest.mark.parametrize("arguments", [["--size", "wide"], ["--size", "8x8"], ["--scenes", "0"]])
def test_command_refuses_bad_values_in_one_line(command, arguments):
    done = command.invoke(app, ["synthetic", *arguments])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
