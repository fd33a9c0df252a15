"""Scores, boxes and mask logits to instances, semantic and panoptic maps, as the official code."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens_up_to_ties import assert_same_labels, decided_pixels, golden_rows
from safetensors.torch import load_file

from ape_model.reference.official_paste import parity_masks, to_canvas, to_output
from ape_model.reference.official_topk import official_top
from ape_model.reference.panoptic import (
    Vocabulary,
    instance_logits,
    panoptic_map,
    semantic_logits,
    semantic_map,
)

ROOT = Path(__file__).resolve().parents[3]


def golden_dir():
    if "APE_GOLDENS" in os.environ:
        return Path(os.environ["APE_GOLDENS"])
    shared = ROOT / "../shared/goldens"
    return shared if shared.is_dir() else ROOT / "tests/model/goldens"


def cases():
    path = golden_dir() / "post.json"
    entries = json.loads(path.read_text())["cases"] if path.exists() else {}
    return {k: v for k, v in entries.items() if (golden_dir() / f"post_{k}.safetensors").exists()}


def vocabulary(case, columns):
    meta = case["metadata"] or {}
    stuff = meta.get("stuff_classes", [])
    things = meta.get("thing_classes", [])
    return Vocabulary(
        tuple(range(len(things))),
        columns,
        overlapping=bool(set(things) & set(stuff)),
        background=bool(stuff) and stuff[0] == "things",
    )


def everything(name):
    case = cases()[name]
    golden = load_file(golden_dir() / f"post_{name}.safetensors")
    rule = {"threshold": case["score_thresh"], "topk": case["topk"], "nms": case["nms"]}
    names = " ".join(golden)
    kinds = [kind for kind in ("inst", "sem_seg", "panoptic") if f"{kind}0" in names]
    for image, size in enumerate(case["image_sizes"]):
        canvas = to_canvas(golden["mask_logits"][image], (case["padded"], case["padded"]))
        yield case, golden, rule, kinds, image, tuple(size), canvas


def columns_of(kind, logits, words):
    if kind == "inst":
        return instance_logits(logits, words)
    return semantic_logits(logits, words) if kind == "sem_seg" else logits


@pytest.mark.parametrize("name", cases())
def test_the_same_pairs_are_kept(name):
    for case, golden, rule, kinds, image, size, _ in everything(name):
        words = vocabulary(case, golden["box_cls"].shape[-1])
        for call, kind in enumerate(kinds):
            columns = columns_of(kind, golden["box_cls"][image], words)
            assert torch.equal(columns, golden[f"inference{call}.box_cls"][image])
            best = official_top(columns, golden["boxes"][image], size, **rule)
            key = f"inference{call}.{image}"
            queries, prompts = golden[f"{key}.filter_inds"], golden[f"{key}.classes"]
            best = golden_rows(best, queries, prompts, columns, golden["boxes"][image], size)
            torch.testing.assert_close(best.scores, golden[f"{key}.scores"])
            torch.testing.assert_close(best.boxes, golden[f"{key}.boxes"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [k for k, v in cases().items() if "inst0.masks_shape" in v])
def test_no_mask_pixel_differs(name):
    for case, golden, rule, _, image, size, canvas in everything(name):
        words = vocabulary(case, golden["box_cls"].shape[-1])
        columns = instance_logits(golden["box_cls"][image], words)
        best = official_top(columns, golden["boxes"][image], size, **rule)
        binary = canvas[best.queries].sigmoid() > 0.5
        masks, boxes, kept = parity_masks(binary, best.boxes, size, tuple(case["orig"][image]))
        shape = case[f"inst{image}.masks_shape"]
        bits = np.unpackbits(golden[f"inst{image}.masks_packbits"].numpy())
        wanted = torch.from_numpy(bits[: int(np.prod(shape))].astype(bool)).view(shape)
        assert masks.shape == wanted.shape
        assert int((masks != wanted).sum()) == 0
        assert torch.equal(best.prompts[kept], golden[f"inst{image}.classes"])
        torch.testing.assert_close(boxes, golden[f"inst{image}.boxes"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [k for k in cases() if not k.startswith("expression")])
def test_the_same_semantic_map(name):
    for case, golden, rule, _, image, size, canvas in everything(name):
        words = vocabulary(case, golden["box_cls"].shape[-1])
        columns = semantic_logits(golden["box_cls"][image], words)
        best = official_top(columns, golden["boxes"][image], size, **rule)
        prior = case["stuff_prob_thing"] if case["entity"] == "stuff" else 0.0
        painted = semantic_map(columns[best.queries], canvas[best.queries], prior)
        ours = to_output(painted, size, tuple(case["orig"][image]))
        key = next(k for k in golden if k.startswith(f"sem_seg{image}.stride"))
        step = int(key.rpartition("stride")[2])
        torch.testing.assert_close(ours[:, ::step, ::step], golden[key], rtol=1e-4, atol=1e-4)
        assert_same_labels(ours, golden[f"sem_seg{image}.argmax_uint8"])


@pytest.mark.parametrize("name", [k for k, v in cases().items() if "panoptic0.segments" in v])
def test_the_same_panoptic_map(name):
    for case, golden, rule, _, image, size, canvas in everything(name):
        logits = golden["box_cls"][image]
        words = vocabulary(case, logits.shape[-1])
        best = official_top(logits, golden["boxes"][image], size, **rule)
        rows = best.queries
        drawn, segments = panoptic_map(
            logits[rows], canvas[rows], size, tuple(case["orig"][image]), words
        )
        sure = decided_pixels(logits[rows], canvas[rows], size, tuple(case["orig"][image]))
        assert torch.equal(drawn[sure], golden[f"panoptic{image}"][sure])
        found = [{k: getattr(s, k) for k in ("id", "isthing", "category_id")} for s in segments]
        assert found == case[f"panoptic{image}.segments"]
