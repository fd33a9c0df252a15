"""Folders of semantic and panoptic maps: what is in the files, whole and recovered."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from results import PROMPTS, made

from ape_stream import masks
from ape_stream.errors import UsageError
from ape_stream.plugins import make
from ape_stream.sinks.recover import recover
from ape_stream.specs import sink_plugin
from ape_stream.types import Maps, PanopticMap, Segment, SemanticMap


def mapped(k=0):
    """A result with both maps: a stuff prompt on the left, 300 as an id in the middle."""
    result = made(k)
    ids = np.zeros(result.frame.size, np.uint16)
    ids[:, :20], ids[10:30, 40:50] = 1, 300
    segments = (Segment(1, 2, False, 0.75, 20 * 90), Segment(300, 0, True, 0.5, 200))
    semantic = np.choose(np.searchsorted([1, 300], ids, side="right"), [0, 3, 1])
    maps = Maps(
        SemanticMap(semantic.astype(np.uint16)), PanopticMap(ids, segments, (False, False, True))
    )
    return replace(result, maps=maps)


def written(folder, count=2):
    sink = make("sinks", sink_plugin(f"{folder}/"), f"{folder}/", options={})
    with sink:
        for k in range(count):
            sink.write(mapped(k))


def test_a_semantic_folder_holds_the_prompt_of_every_pixel(tmp_path):
    written(tmp_path / "semantic")
    png = cv2.imread(str(tmp_path / "semantic/cam/000001.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    np.testing.assert_array_equal(png, mapped().semantic())
    first = json.loads((tmp_path / "semantic/legend.jsonl").read_text().splitlines()[0])
    assert first["regions"] == [
        {"value": 1, "prompt": PROMPTS[0].text, "pixels": 200},
        {"value": 3, "prompt": PROMPTS[2].text, "pixels": 1800},
    ]


def assert_coco_panoptic(folder, count, *, partial):
    document = json.loads((folder / "panoptic.json").read_text())
    assert document["info"]["partial"] is partial
    assert [c["isthing"] for c in document["categories"]] == [1, 1, 0]
    assert [c["name"] for c in document["categories"]] == list(PROMPTS.texts)
    assert len(document["images"]) == len(document["annotations"]) == count
    for image, annotation in zip(document["images"], document["annotations"], strict=True):
        assert annotation["image_id"] == image["id"]
        # As panopticapi reads it: red, green and blue of the PNG.
        rgb = cv2.imread(str(folder / annotation["file_name"]))[..., ::-1].astype(int)
        ids = rgb @ [1, 256, 65536]
        assert set(np.unique(ids)) == {0, 1, 300}
        stuff, thing = annotation["segments_info"]
        assert (stuff["category_id"], thing["category_id"]) == (3, 1)
        for segment in (stuff, thing):
            rows, columns = np.nonzero(ids == segment["id"])
            x, y, w, h = segment["bbox"]
            assert segment["area"] == len(rows)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)


def test_a_panoptic_folder_is_coco_panoptic(tmp_path):
    written(tmp_path / "panoptic")
    assert_coco_panoptic(tmp_path / "panoptic", 2, partial=False)
    assert not (tmp_path / "panoptic.part").exists()


def test_a_panoptic_folder_that_was_cut_short_is_recovered(tmp_path):
    sink = make("sinks", "panoptic", f"panoptic:{tmp_path / 'out'}", options={})
    with pytest.raises(KeyboardInterrupt), sink:  # noqa: PT012
        for k in range(3):
            sink.write(mapped(k))
        raise KeyboardInterrupt
    assert not (tmp_path / "out").exists()
    legend = tmp_path / "out.part/legend.jsonl.part"
    legend.write_text(legend.read_text() + '{"file": "cam/0000')  # a kill in the middle of a line
    assert recover(tmp_path / "out.part") == (tmp_path / "out", "3 frames")
    assert_coco_panoptic(tmp_path / "out", 3, partial=True)


def test_overwriting_replaces_maps_and_document(tmp_path):
    folder = tmp_path / "panoptic"
    written(folder, 3)
    sink = make("sinks", "panoptic", str(folder), options={"overwrite": True})
    with sink:
        sink.write(mapped(0))
    assert_coco_panoptic(folder, 1, partial=False)
    assert [path.name for path in (folder / "cam").iterdir()] == ["000000.png"]


def test_results_without_maps_are_refused_in_words(tmp_path):
    with (
        pytest.raises(UsageError, match="no panoptic map"),
        make("sinks", "panoptic", str(tmp_path / "p"), options={}) as sink,
    ):
        sink.write(made())


def test_outputs_say_which_maps_they_need(tmp_path):
    needed = {
        name: make(
            "sinks", sink_plugin(f"{tmp_path}/{name}/"), f"{tmp_path}/{name}/", options={}
        ).maps
        for name in ("labels", "semantic", "panoptic")
    }
    assert needed == {"labels": set(), "semantic": {"semantic"}, "panoptic": {"panoptic"}}


def test_ids_survive_as_pixels():
    ids = np.array([[0, 1, 255], [256, 300, 65535]], np.uint16)
    pixels = masks.id_pixels(ids).astype(int)
    np.testing.assert_array_equal(pixels @ [65536, 256, 1], ids)
    assert masks.segment_boxes(ids)[300] == (1, 1, 1, 1)
