"""Every task from its files to its figures, on miniatures: a perfect model scores 100."""

from __future__ import annotations

import json
import os
import pickle
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from in_process import Silent
from typer.testing import CliRunner

from ape_stream.batch.folder import OutFolder
from ape_stream.batch.shards import ShardFolder
from ape_stream.errors import ConfigError, SourceError, UsageError, WireError
from ape_stream.evaluation.benchmarks.check import check
from ape_stream.evaluation.benchmarks.compare import read_run
from ape_stream.evaluation.benchmarks.judging.export import export
from ape_stream.evaluation.benchmarks.judging.score import (
    BOXES_ONLY,
    score,
    suite_scores,
    write_scores,
)
from ape_stream.evaluation.benchmarks.judging.store import Store
from ape_stream.evaluation.benchmarks.miniature import write_miniatures
from ape_stream.evaluation.benchmarks.places import Places
from ape_stream.evaluation.benchmarks.prediction import job as prediction_job
from ape_stream.evaluation.benchmarks.prediction import run as prediction_run
from ape_stream.evaluation.benchmarks.prediction.ask import Asker
from ape_stream.evaluation.benchmarks.prediction.job import PredictJob
from ape_stream.evaluation.benchmarks.prediction.payload import FoundLabels, pack, unpack
from ape_stream.evaluation.benchmarks.prediction.run import Part, RunOptions, parts_in, predict
from ape_stream.evaluation.benchmarks.readers import READERS, read
from ape_stream.evaluation.benchmarks.readers.unpickle import read_pickle
from ape_stream.evaluation.benchmarks.registry import all_tasks, groups, select_tasks
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, MaskCodes
from ape_stream.evaluation.benchmarks.truth import TruthPerceiver
from ape_stream.evaluation.command import app
from ape_stream.testing import OraclePerceiver, frames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.types import Frame, Instances

IMAGES = 2


def options(root: Path, out: Path, *tasks: str, **more: Any) -> RunOptions:
    profile = more.get("profile", "honest")
    given = {"root": str(root), "profile": profile}
    return RunOptions(select_tasks(tasks), root, out, model="truth", options=given, **more)


def run(given: RunOptions) -> None:
    states = predict(given, Silent(), threading.Event())
    assert [state.reason for state in states if state.status != "done"] == []


def figures(out: Path, root: Path, name: str) -> dict[str, float | None]:
    return score(Store(out, root).open(all_tasks()[name])).figures


def test_there_are_the_160_data_sets_of_the_paper_and_the_others() -> None:
    members = groups()
    sizes = {"rf100": 100, "odinw35": 35, "odinw13": 13, "seginw": 25, "160": 160}
    assert {name: len(members[name]) for name in sizes} == sizes
    assert {len(members[name]) for name in ("refcoco", "d3")} == {9, 6}
    assert {task.reader for task in all_tasks().values()} == READERS.keys()


def test_the_official_profile_has_what_was_chosen_by_hand() -> None:
    raccoon = all_tasks()["odinw/Raccoon"]
    assert (raccoon.top_k, raccoon.with_profile("official").top_k) == (300, 1)
    assert all_tasks()["odinw13/Raccoon"].with_profile("official").top_k == 300
    drone = all_tasks()["odinw/AerialMaritimeDrone_large"]
    assert drone.prompt("boat") == "boat"
    assert drone.with_profile("official").prompt("boat") == "a ship"
    assert all_tasks()["odinw/boggleBoards"].with_profile("official").prompt("q") == "letter 'Q'"
    road = all_tasks()["rf100/road-traffic"]
    assert road.paths["images"].endswith("/test")
    assert road.with_profile("official").paths["images"].endswith("/valid")
    fused = [all_tasks()[name].with_profile("official").fused for name in groups()["odinw35"]]
    assert sum(fused) == 24
    assert (
        sum(all_tasks()[name].with_profile("official").fused for name in groups()["odinw13"]) == 7
    )


def test_a_perfect_model_scores_100_in_all_tasks(root: Path, tmp_path: Path) -> None:
    run(options(root, tmp_path))
    store = Store(tmp_path, root)
    assert [task.name for task in store.tasks()] == list(all_tasks())
    scores = {task.name: score(store.open(task)) for task in store.tasks()}
    for name, one in scores.items():
        known = [v for k, v in one.figures.items() if v is not None and "/AR@1" not in k]
        assert known, name
        assert known == pytest.approx([100] * len(known)), name
        assert not one.notes, name
    assert suite_scores(scores).keys() == {"odinw13", "odinw35", "rf100", "seginw"}
    write_scores(tmp_path, store, scores)
    assert read_run(tmp_path).figures["odinw35", "box/AP mean"] == pytest.approx(100)


def test_a_data_set_is_checked_before_a_model_runs(root: Path, tmp_path: Path) -> None:
    for name in ("lvis/val", "ade20k/panoptic", "d3/intra-full", "openimages/val"):
        found = check(all_tasks()[name], root, "official")
        assert (found.problems, found.images) == ([], IMAGES), name
    nothing = check(all_tasks()["pascal/pc59"], tmp_path, "honest")
    assert "pascal-context" in nothing.problems[0]
    assert str(tmp_path / "VOCdevkit/VOC2010/trainval") in nothing.problems[0]
    with pytest.raises(UsageError, match=r"no annotations at .*instances_val2017"):
        run(options(tmp_path, tmp_path / "out", "coco/val"))
    write_miniatures(select_tasks(["seginw/Cows"]), tmp_path, IMAGES)
    next((tmp_path / "seginw/Cows/valid").glob("*2.jpg")).unlink()
    assert "1 of 2 images" in check(all_tasks()["seginw/Cows"], tmp_path, "honest").problems[0]


def shards(out: Path) -> dict[str, bytes]:
    folder = OutFolder(out).work
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.shard")}


def test_a_run_that_was_killed_and_one_in_shares_give_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (prediction_job, prediction_run):
        monkeypatch.setattr(module, "PART_IMAGES", 1)
    monkeypatch.setattr("ape_stream.evaluation.benchmarks.judging.store.PART_IMAGES", 1)
    names = ("lvis/val", "coco/panoptic", "seginw/Cows")
    run(options(root, tmp_path / "whole", *names))
    describe, calls = PredictJob.describe, []

    def dies(self: PredictJob, frames: Any) -> list[bytes]:
        calls.append(frames)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return describe(self, frames)

    monkeypatch.setattr(PredictJob, "describe", dies)
    with pytest.raises(KeyboardInterrupt):
        run(options(root, tmp_path / "killed", *names))
    store = Store(tmp_path / "killed", root)
    assert len(shards(tmp_path / "killed")) == 2
    with pytest.raises(ConfigError, match="2 images are not predicted yet"):
        store.open(all_tasks()["seginw/Cows"])
    monkeypatch.setattr(PredictJob, "describe", describe)
    run(options(root, tmp_path / "killed", *names))
    for number in (2, 1, 3):
        run(options(root, tmp_path / "shares", *names, part=Part(number, 3)))
    whole = shards(tmp_path / "whole")
    assert len(whole) == 6
    assert shards(tmp_path / "killed") == shards(tmp_path / "shares") == whole
    for name in names:
        assert figures(tmp_path / "killed", root, name) == figures(tmp_path / "whole", root, name)


def test_predictions_of_other_prompts_or_data_are_not_mixed(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    write_miniatures(select_tasks(["odinw/BCCD", "seginw/Cows"]), data, IMAGES)
    run(options(data, out, "odinw/BCCD"))
    run(options(data, out, "seginw/Cows"))  # another task joins
    assert len(Store(out, data).manifest.predictions) == 2
    with pytest.raises(ConfigError, match="profile: "):
        run(options(data, out, "odinw/BCCD", profile="official"))
    with pytest.raises(ConfigError, match="limit: "):
        run(options(data, out, "odinw/BCCD", limit=1))
    path = data / all_tasks()["odinw/BCCD"].paths["annotations"]
    table = json.loads(path.read_text())
    table["annotations"].pop()
    path.write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="were made for other data"):
        Store(out, data).open(all_tasks()["odinw/BCCD"])


def test_a_limit_is_marked_in_every_score(root: Path, tmp_path: Path) -> None:
    run(options(root, tmp_path, "lvis/val", "d3/inter-full", limit=1))
    for name in ("lvis/val", "d3/inter-full"):
        found = score(Store(tmp_path, root).open(all_tasks()[name]))
        assert found.notes[0] == "NOT A REAL FIGURE: only the first 1 of 2 images"
        assert found.figures["box/AP"] == pytest.approx(100)


def test_exported_files_have_the_ids_of_the_data_set(root: Path, tmp_path: Path) -> None:
    run(options(root, tmp_path / "out", "d3", "lvis/val", "coco/stuff"))
    store = Store(tmp_path / "out", root)
    assert export(store.open(all_tasks()["d3/intra-presence"]), tmp_path / "d3.json")
    rows = json.loads((tmp_path / "d3.json").read_text())
    assert {row["image_id"] for row in rows} == {0, 1}
    path = root / all_tasks()["lvis/val"].paths["annotations"]
    truth = {(a["image_id"], a["category_id"]) for a in json.loads(path.read_text())["annotations"]}
    export(store.open(all_tasks()["lvis/val"]), tmp_path / "lvis.json")
    rows = json.loads((tmp_path / "lvis.json").read_text())
    assert {(row["image_id"], row["category_id"]) for row in rows} == truth
    assert all(row["segmentation"]["size"] == [48, 64] for row in rows)
    with pytest.raises(ConfigError, match="has maps"):
        export(store.open(all_tasks()["coco/stuff"]), tmp_path / "stuff.json")


def test_a_pickle_cannot_run_anything(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"names": Evil()}))
    with pytest.raises(SourceError, match="which is no data"):
        read_pickle(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays_are_read_from_a_pickle_of_any_protocol(
    tmp_path: Path, protocol: int
) -> None:
    path = tmp_path / "a.pkl"
    good = {"a": [1, "b"], "c": np.arange(6.0).reshape(2, 3), "d": np.int64(3), "e": b"\xff\x00"}
    path.write_bytes(pickle.dumps(good, protocol))
    again = read_pickle(path)
    assert again.pop("c").tolist() == good.pop("c").tolist()
    assert again == good
    # Bytes of protocol 0 name a codec: only the one that Python writes is known.
    path.write_bytes(b"c_codecs\nencode\n(Va\nVrot13\ntR.")
    with pytest.raises(SourceError, match="bytes as text in 'rot13'"):
        read_pickle(path)


def test_an_annotation_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    task = all_tasks()["seginw/Cows"]
    write_miniatures([task], tmp_path, IMAGES)
    path = tmp_path / task.paths["annotations"]
    path.write_text(path.read_text().replace("000000000001.jpg", "../../../secret.jpg"))
    with pytest.raises(SourceError, match="outside of"):
        read(Places(tmp_path, task))


def test_predictions_come_back_as_they_were_and_noise_is_refused() -> None:
    code = {"size": [4, 5], "counts": b"04d0"}
    found = FoundRegions(
        np.array([7, 7]), np.array([1, 2], np.int32), np.ones((2, 4), np.float32),
        np.array([0.5, 0.25], np.float32), MaskCodes.of([code, code]),
    )  # fmt: skip
    again = unpack(pack(found), 7)
    assert isinstance(again, FoundRegions)
    assert pack(again) == pack(found)
    assert again.masks is not None
    assert again.masks[1]["counts"] == b"04d0"
    labels = np.array([[0, 1], [847, 65535]], np.uint16)
    again = unpack(pack(FoundLabels(labels)), 1)
    assert isinstance(again, FoundLabels)
    assert np.array_equal(again.ids, labels)
    for noise in (b"", b"{}", pack(found)[:-1], b'{"scores": ["<f8", [1]]}\n12345678'):
        with pytest.raises(WireError):
            unpack(noise, 1)


def test_a_damaged_shard_is_named(root: Path, tmp_path: Path) -> None:
    run(options(root, tmp_path, "seginw/Cows"))
    store = Store(tmp_path, root)
    [clip] = parts_in(store.manifest, "seginw/Cows")
    shard = OutFolder(tmp_path).shards(clip).path(0)
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    assert isinstance(ShardFolder(shard.parent), ShardFolder)
    with pytest.raises(ConfigError, match="seginw/Cows/00000"):
        score(store.open(all_tasks()["seginw/Cows"]))


def test_the_commands_in_one_sitting(root: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), str(tmp_path / "out")
    given = ["--root", str(root)]

    def call(*args: str, code: int = 0) -> str:
        result = runner.invoke(app, args)
        assert result.exit_code == code, result.output
        return result.stdout

    listed = json.loads(call("list", "odinw13", *given, "--json"))
    assert len(listed["tasks"]) == 13
    call("check", "lvis/val", "--root", str(tmp_path), code=1)
    ran = call("run", "lvis/val", *given, "--out", out, "--model", "truth", "--json")
    assert json.loads(ran)["images"] == IMAGES
    scored = json.loads(call("score", out, *given, "--json"))
    assert scored["tasks"]["lvis/val"]["figures"]["mask/AP"] == pytest.approx(100)
    table = call("table", out, "--published")
    assert "APE-L_D" in table
    assert "59.6" in table
    call("export", out, "lvis/val", "-o", str(tmp_path / "lvis.json"), *given)


def test_a_share_is_a_number_of_several() -> None:
    assert Part.parse("3/8") == Part(3, 8)
    for text in ("0/8", "9/8", "3", "a/b"):
        with pytest.raises(UsageError, match="3/8"):
            Part.parse(text)


def test_two_classes_of_one_name_get_the_same_regions(root: Path) -> None:
    data = read(Places(root, all_tasks()["seginw/Cows"]))
    again = replace(data, prompts=("same",) * len(data.prompts))
    [frame] = frames(1, size=(48, 64))
    found = Asker(OraclePerceiver(), again).predict(again.records[0], frame)
    assert isinstance(found, FoundRegions)
    assert found.class_ids.tolist() == data.classes.ids.tolist()


class _BoxesOnly(TruthPerceiver):
    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        return [replace(found, masks=None) for found in super().perceive(frames)]


def test_a_model_of_boxes_alone_has_the_figures_of_boxes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prediction_job, "make", lambda _kind, _name, *, options: _BoxesOnly(**options)
    )
    names = ("coco/val", "lvis/val", "refcoco/unc-val")
    run(options(root, tmp_path / "boxes", *names))
    store = Store(tmp_path / "boxes", root)
    for name in names:
        scores = score(store.open(all_tasks()[name]))
        assert BOXES_ONLY in scores.notes
        shown = {name: value for name, value in scores.figures.items() if value is not None}
        assert all(name.startswith("box/") for name in shown)
        assert {"box/AP", "box/P@0.5"} & shown.keys()
        assert all(value == pytest.approx(100) for name, value in shown.items() if "@1" not in name)
    given = options(root, tmp_path / "masks", "phrasecut/test")
    [state] = predict(given, Silent(), threading.Event())
    assert "task phrasecut/test needs masks" in str(state.reason)
