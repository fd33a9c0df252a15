"""Every stage of every network against tensors of the official code.

Files and tiny configurations are discovered: another set of goldens runs unchanged.
"""

import json
import os
import re
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens_up_to_ties import (
    assert_same_labels,
    assert_same_order,
    decided_pixels,
    golden_rows,
)
from safetensors.torch import load_file

from ape_model.config import PRESETS, ApeConfig, VitConfig
from ape_model.inference.preprocess import normalise
from ape_model.network.ape import OFFICIAL_PREFIX, Ape, PromptFeatures
from ape_model.network.geometry import box_position
from ape_model.network.proposals import candidates_per_level, survivors_per_level
from ape_model.reference.mask_prompt import restrict_proposals
from ape_model.reference.official_paste import parity_masks, to_canvas, to_output
from ape_model.reference.official_topk import official_top
from ape_model.reference.panoptic import (
    Vocabulary,
    instance_logits,
    panoptic_map,
    semantic_logits,
    semantic_map,
)
from ape_model.reference.phrase_padding import pad_zeros
from ape_model.training.prompts.embedding_queue import EmbeddingQueue

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "tests/model/goldens"
# The order of sums differs; under float64 the official tables of places stay float32.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}


def golden_dir():
    if "APE_GOLDENS" in os.environ:
        return Path(os.environ["APE_GOLDENS"])
    shared = ROOT / "../shared/goldens"
    return shared if shared.is_dir() else COMMITTED


def described():
    for path in sorted(golden_dir().glob("*.json")):
        info = json.loads(path.read_text())
        if "family_flags" in info:
            yield path.stem, info


CASES = [
    (name, mode)
    for name, info in described()
    for mode in info["modes"]
    if (golden_dir() / f"{name}_{mode}.safetensors").exists()
]


def tiny_config(info):
    c, flags = info["config"], info["family_flags"]
    vit = VitConfig(
        width=c["embed"],
        depth=c["depth"],
        heads=c["vheads"],
        window=c["window"],
        window_blocks=tuple(c["win_blocks"]),
        pretrain_grid=c["pretrain_img"] // c["patch"],
        patch=c["patch"],
        rope_grid=c["pt_hw"],
        mlp_ratio=c["mlp_ratio"],
        packed=flags["vit"] == "ti",
        inner_norm=flags["vit"] == "clip",
    )
    return ApeConfig(
        name=info["family"],
        backbone=vit,
        canvas=c["img"],
        hidden=c["hidden"],
        heads=c["heads"],
        ffn=c["ffn"],
        encoder_layers=c["enc"],
        decoder_layers=c["dec"],
        queries=c["queries"],
        neck=flags["neck"],
        fusion=flags["vl"],
        fusion_width=c["fdim"],
        fusion_heads=c["fheads"],
        ambiguous_heads=flags["amb"],
        text_width=c["dl"],
        pre_nms_topk=c["pre_nms_topk"],
        proposal_nms=c["nms_enc"],
    )


@lru_cache(maxsize=2)
def load_model(name, dtype):
    info = dict(described())[name]
    weights = load_file(golden_dir() / f"{name}_weights.safetensors")
    model = Ape(tiny_config(info))
    model.load_state_dict({k.removeprefix(OFFICIAL_PREFIX): v for k, v in weights.items()})
    return info, model.eval().to(dtype)


def dataset_of(mode, info):
    """Which dataset a mode was run for; None for the demo."""
    if mode.startswith("demo"):
        return None
    kind = {"name_sep": "sep", "expression": "exp", "name_stuffonly": "stuffonly"}.get(mode, "ovl")
    return next(int(i) for i, d in info["datasets"].items() if d["name"].endswith(kind))


def prompt_features(mode, info, config, embeddings):
    sentences = "phrase" in mode or mode == "expression"
    if config.fusion and sentences:
        sizes = tuple(info["num_classes_per_criterion"])
        dataset = dataset_of(mode, info)
        if mode.endswith("bankreset"):
            embeddings = pad_zeros(embeddings, sizes[-1])
        elif dataset is not None:
            embeddings = EmbeddingQueue(sizes, config.text_width).extend(embeddings, dataset)
        return PromptFeatures(fusion=embeddings[None], classes=None)
    if mode == "name_fused_text":
        return PromptFeatures(fusion=embeddings[None], classes=embeddings[None])
    if mode == "name_stuffonly":
        embeddings = embeddings.clone()
        embeddings[0] = 0
    return embeddings


@contextmanager
def tokens_of(model, golden, dtype):
    """Let the decoder start from the golden's tokens, once ours are the same up to ties."""
    select, image = model.transformer.select_queries, count()

    def checked(objectness, boxes, levels):
        theirs = golden["topk_proposals"][next(image)]
        assert_same_order(select(objectness, boxes, levels), theirs, objectness)
        return theirs

    if dtype == torch.float32:  # the goldens of float64 have an order of their own
        model.transformer.select_queries = checked
    try:
        yield
    finally:
        model.transformer.__dict__.pop("select_queries", None)


@cache
def run(name, mode, dtype):
    info, model = load_model(name, dtype)
    config = model.config
    golden = load_file(golden_dir() / f"{name}_{mode}.safetensors")
    sizes = tuple(tuple(size) for size in info["modes"][mode]["sizes"])
    images = torch.zeros(len(sizes), 3, config.canvas, config.canvas, dtype=dtype)
    region = torch.zeros(len(sizes), config.canvas, config.canvas, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        images[i, :, :h, :w] = normalise(golden[f"in.image{i}"].to(dtype), config)
        if f"in.mask_prompt{i}" in golden:
            region[i, :h, :w] = golden[f"in.mask_prompt{i}"] > 0
    stages, hooks = {}, []

    def keep(key, index=None):
        def hook(_module, _inputs, output):
            stages[key] = output if index is None else output[index]

        return hook

    for i, block in enumerate(model.backbone.net.blocks):
        hooks.append(block.register_forward_hook(keep(f"vit.block{i}")))
    hooks.append(
        model.backbone.net.blocks[0].register_forward_pre_hook(
            lambda _m, inputs: stages.__setitem__("vit.block_in0", inputs[0])
        )
    )
    encoder = model.transformer.encoder
    for i, layer in enumerate(encoder.layers):
        hooks.append(layer.register_forward_hook(keep(f"enc.layer{i}")))
        if config.fusion:
            hooks.append(encoder.vl_layers[i].register_forward_hook(keep(f"enc.vl{i}.v", 0)))
            hooks.append(encoder.vl_layers[i].register_forward_hook(keep(f"enc.vl{i}.l", 1)))
    hooks.append(model.backbone.register_forward_hook(keep("sfp")))
    embeddings = golden["in.text_embeddings"].to(dtype)
    prompts = prompt_features(mode, info, config, embeddings)
    if isinstance(prompts, torch.Tensor):
        prompts = model.vocabulary(prompts)
    with torch.inference_mode(), tokens_of(model, golden, dtype):
        features = model.encode_image(images, sizes)
        outputs = model.head(restrict_proposals(features, region), prompts)
        fill_stages(stages, model, features, outputs, prompts)
    for hook in hooks:
        hook.remove()
    return golden, info, model, features, outputs, stages


def fill_stages(stages, model, features, outputs, prompts):
    place, batch = features.geometry, len(features.sizes)
    shapes, counts = place.levels.shapes, place.levels.counts
    for i, level in enumerate(stages.pop("sfp").levels):
        stages[f"sfp.p{i + 2}"] = level
    padded, position = place.padded.split(counts, 1), place.position.split(counts, 1)
    for i, shape in enumerate(shapes):
        stages[f"neck.{i}"] = features.maps[i]
        stages[f"mask.{i}"] = padded[i].unflatten(1, shape)
        stages[f"pos.{i}"] = position[i].mT.unflatten(-1, shape)
    if prompts.fusion is not None:
        stages["enc.vl0.l_in"] = prompts.fusion.expand(batch, -1, -1)
    objectness, coords = outputs.tokens.objectness, outputs.tokens.all_boxes()
    stages["memory"] = outputs.memory
    stages["prop.class"] = objectness[..., None]
    stages["prop.coord_unact"] = coords
    stages["prop.output_proposals_unact"] = place.anchors
    stages["init_reference"] = outputs.proposals.boxes
    stages["dec.query_in"] = outputs.proposals.query
    stages["dec.proposal_pos_embed"] = box_position(
        outputs.proposals.boxes, 2 * model.config.hidden
    )
    stages["inter_references"] = outputs.decoded.boxes
    for i, (hidden, boxes) in enumerate(
        zip(outputs.decoded.hidden, outputs.decoded.boxes, strict=True)
    ):
        stages[f"dec.layer{i}"], stages[f"boxes.{i}"] = hidden, boxes
        stages[f"logits.{i}"] = model.class_embed[i](hidden, outputs.text)
    stages["class.features_l"] = outputs.text.expand(batch, -1, -1)
    stages["mask_features"] = outputs.mask_feature
    queries = torch.arange(model.config.queries)
    stages["mask_logits.last"] = torch.stack(
        [model.region_masks(outputs, i, queries) for i in range(batch)]
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
