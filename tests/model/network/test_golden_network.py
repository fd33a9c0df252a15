"""Every stage of every network against tensors of the official code."""

import json
import re

import numpy as np
import pytest
import torch
from golden_runs import CASES, dataset_of, golden_dir, run
from goldens_up_to_ties import (
    assert_same_labels,
    assert_same_order,
    decided_pixels,
    golden_rows,
)

from ape_model.config import PRESETS
from ape_model.network.ape import OFFICIAL_PREFIX, Ape
from ape_model.network.proposals import candidates_per_level, survivors_per_level
from ape_model.reference.official_paste import parity_masks, to_canvas, to_output
from ape_model.reference.official_topk import official_top
from ape_model.reference.panoptic import (
    Vocabulary,
    instance_logits,
    panoptic_map,
    semantic_logits,
    semantic_map,
)

# The order of sums differs; under float64 the official tables of places stay float32.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
AT_THE_EDGE = 2e-6
"""Scores of mask pixels this close to one half fall either way with float32's last digit, which
differs between processors; the official pasting keeps the order of masks, so the golden lies
between the masks of both edges."""
UNDECIDED = 1e-4
"""Share of pixels that may lie between both edges: more would hide a difference."""

STAGE = re.compile(
    r"^(vit\.|sfp\.|neck\.|pos\.|mask\.\d|enc\.|memory|prop\.(class|coord|output)|init_ref|inter_ref"
    r"|dec\.|logits|boxes\.|class\.|mask_features|mask_logits)"
)


def sampled(name, tensor):
    """Take the part of a stage that a golden's name says it holds."""
    found = re.search(r"\.stride(\d+)$", name)
    if not found:
        return tensor
    step = int(found[1])
    return tensor[:, ::step] if tensor.ndim == 3 else tensor[..., ::step, ::step]


def assert_close(name, ours, golden, tolerance):
    assert ours.shape == golden.shape, name
    ours, golden = ours.double(), golden.double()
    assert torch.equal(ours.isinf(), golden.isinf()), name
    ours, golden = ours.nan_to_num(posinf=0), golden.nan_to_num(posinf=0)
    error = (ours - golden).abs().max() / golden.abs().max().clamp(min=1e-12)
    assert error <= tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize(("name", "mode"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_every_stage_matches_its_golden(name, mode, dtype):
    golden, _, _, _, _, stages = run(name, mode, dtype)
    prefix = "f64." if dtype == torch.float64 else ""
    compared = 0
    for key, value in golden.items():
        if not key.startswith(prefix) or not STAGE.match(key.removeprefix(prefix)):
            continue
        stage = key.removeprefix(prefix)
        ours = sampled(stage, stages[re.sub(r"\.stride\d+$", "", stage)])
        assert_close(key, ours, value, TOLERANCE[dtype])
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_the_same_tokens_are_proposed(name, mode):
    golden, _, model, features, outputs, _ = run(name, mode, torch.float32)
    with torch.inference_mode():
        objectness, boxes = outputs.tokens.objectness, outputs.tokens.all_boxes().sigmoid()
    for i in range(len(features.sizes)):
        if f"prop.pre_nms_inds.{i}" in golden:
            before = candidates_per_level(
                objectness[i], features.geometry.levels, model.config.pre_nms_topk
            )
            theirs = golden[f"prop.pre_nms_inds.{i}"]
            for mine, wanted in zip(
                before.split(model.config.pre_nms_topk),
                theirs.split(model.config.pre_nms_topk),
                strict=True,
            ):
                assert_same_order(mine, wanted, objectness[i])
        survivors = golden[f"prop.keep_inds.{i}"]
        if survivors.shape[0] >= model.config.queries:
            ours, stay = survivors_per_level(
                objectness[i], boxes[i].__getitem__, features.geometry.levels, model.config
            )
            assert_same_order(ours[stay.any(0)], survivors, objectness[i])


def vocabulary_of(mode, info, columns):
    dataset = dataset_of(mode, info)
    meta = {} if dataset is None else info["datasets"][str(dataset)]
    stuff = meta.get("stuff_classes", [])
    things = meta.get("thing_classes", [])
    return meta, Vocabulary(
        things=tuple(range(len(things))),
        columns=columns,
        overlapping=bool(set(things) & set(stuff)),
        background=bool(stuff) and stuff[0] == "things",
    )


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_the_same_detections_masks_and_maps(name, mode):
    golden, info, _, features, outputs, stages = run(name, mode, torch.float32)
    described_mode = info["modes"][mode]
    logits, masks = outputs.logits, stages["mask_logits.last"]
    meta, words = vocabulary_of(mode, info, logits.shape[-1])
    rule = {
        "threshold": info["config"]["score_thr"],
        "topk": 1 if mode == "expression" else info["config"]["topk"],
        "nms": info["config"]["test_nms"],
    }
    stuff_only = bool(meta) and "thing_classes" not in meta
    has = {kind: f"{kind}0" in " ".join(golden) for kind in ("inst", "sem_seg", "panoptic")}
    calls = [kind for kind in ("inst", "sem_seg", "panoptic") if has[kind]]
    for i, size in enumerate(features.sizes):
        canvas = to_canvas(masks[i], features.canvas)
        output = tuple(described_mode["orig"][i])
        for call, kind in enumerate(calls):
            columns = {
                "inst": instance_logits,
                "sem_seg": semantic_logits,
                "panoptic": lambda x, _: x,
            }[kind](logits[i], words)
            found = official_top(columns, outputs.boxes[i], size, **rule)
            best = check_call(golden, f"inference{call}", i, columns, found, outputs.boxes[i], size)
            rows = best.queries
            if kind == "inst":
                # Pasted into the golden's boxes: a box off by float32's last digit moves outlines.
                theirs = golden[f"inference{call}.{i}.boxes"]
                score = canvas[rows].sigmoid()
                (least, boxes, kept), (most, _, _) = (
                    parity_masks(score > edge, theirs, size, output)
                    for edge in (0.5 + AT_THE_EDGE, 0.5 - AT_THE_EDGE)
                )
                assert torch.equal(best.prompts[kept], golden[f"inst{i}.classes"])
                assert_close("boxes", boxes, golden[f"inst{i}.boxes"], 1e-4)
                shape = described_mode["info"][f"inst{i}.masks_shape"]
                assert list(least.shape) == shape
                wanted = unpack(golden[f"inst{i}.masks_packbits"], shape)
                assert not (least & ~wanted).any()
                assert not (wanted & ~most).any()
                assert (most ^ least).sum() <= UNDECIDED * least.numel()
            elif kind == "sem_seg":
                prior = 0.9 if stuff_only else 0.0
                painted = semantic_map(columns[rows], canvas[rows], prior)
                check_semantic(golden, i, to_output(painted, size, output))
            else:
                drawn, segments = panoptic_map(columns[rows], canvas[rows], size, output, words)
                sure = decided_pixels(columns[rows], canvas[rows], size, output)
                assert torch.equal(drawn[sure], golden[f"panoptic{i}"][sure])
                segments_found = [
                    {k: getattr(s, k) for k in ("id", "isthing", "category_id")} for s in segments
                ]
                assert segments_found == described_mode["info"][f"panoptic{i}.segments"]


def check_call(golden, call, image, columns, found, boxes, size):
    """Compare detections, and return ours in the golden's order."""
    theirs = golden[f"{call}.box_cls"][image]
    assert columns.shape == theirs.shape
    assert torch.equal(columns.isinf(), theirs.isinf())
    key = f"{call}.{image}"
    queries, prompts = golden[f"{key}.filter_inds"], golden[f"{key}.classes"]
    best = golden_rows(found, queries, prompts, columns, boxes, size)
    assert_close(f"{key}.scores", best.scores, golden[f"{key}.scores"], 1e-4)
    assert_close(f"{key}.boxes", best.boxes, golden[f"{key}.boxes"], 1e-4)
    return best


def check_semantic(golden, image, ours):
    step = next(k for k in golden if k.startswith(f"sem_seg{image}.stride"))
    every = int(step.rpartition("stride")[2])
    assert_close(step, ours[:, ::every, ::every], golden[step], 1e-4)
    assert_same_labels(ours, golden[f"sem_seg{image}.argmax_uint8"])


def unpack(bits, shape):
    count = int(np.prod(shape))
    return torch.from_numpy(np.unpackbits(bits.numpy())[:count].astype(bool)).view(shape)


@pytest.mark.parametrize(
    "path", sorted(golden_dir().glob("manifest_*.json")), ids=lambda path: path.stem
)
def test_the_state_is_the_official_one_key_for_key(path):
    manifest = json.loads(path.read_text())
    preset = PRESETS[manifest["variant"].removeprefix("APE-").removeprefix("L_")]
    with torch.device("meta"):
        model = Ape(preset)
    ours = {OFFICIAL_PREFIX + key: list(value.shape) for key, value in model.state_dict().items()}
    vision = {
        key: shape
        for key, (shape, _) in manifest["state_dict"].items()
        if "model_language" not in key and ".criterion." not in key
    }
    assert ours == vision
