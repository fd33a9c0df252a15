"""Runs of our networks on the goldens' inputs, with every stage of them.

Files and tiny configurations are discovered: another set of goldens runs unchanged.
"""

import json
import os
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import count
from pathlib import Path

import torch
from goldens_up_to_ties import assert_same_order
from safetensors.torch import load_file

from ape_model.config import ApeConfig, VitConfig
from ape_model.inference.preprocess import normalise
from ape_model.network.ape import OFFICIAL_PREFIX, Ape, PromptFeatures
from ape_model.network.geometry import box_position
from ape_model.reference.mask_prompt import restrict_proposals
from ape_model.reference.phrase_padding import pad_zeros
from ape_model.training.prompts.embedding_queue import EmbeddingQueue

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "tests/model/goldens"


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
