"""Rates, stochastic depth, prompts and states of the official trainer, in small cases."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ape_model.config import PRESETS
from ape_model.errors import CheckpointError
from ape_model.network import fusion
from ape_model.network.ape import Ape
from ape_model.training.command import RECIPES
from ape_model.training.dropout import add_drop_path, add_fusion_dropout
from ape_model.training.official.backbone import load_backbone
from ape_model.training.official.check import shrunk_config
from ape_model.training.official.optimizer import learnt_weights, make_optimizer
from ape_model.training.official.prompts import class_counts
from ape_model.training.official.recipe import OptimizerConfig, read_official_recipe
from ape_model.training.official.records import RowData
from ape_model.training.state import write_state

EXPECTED = {  # factor of the learning rate, weight decay
    "backbone.net.pos_embed": (0.8**25, 0.0),
    "backbone.net.patch_embed.proj.weight": (0.8**25, 0.05),
    "backbone.net.blocks.0.norm1.weight": (0.8**24, 0.05),
    "backbone.net.blocks.11.norm1.weight": (0.8**13, 0.05),  # the last one of Ti
    "backbone.net.blocks.23.mlp.w3.weight": (0.8**1, 0.05),
    "backbone.simfp_2.0.weight": (1.0, 0.05),
    "transformer.decoder.layers.0.attentions.1.sampling_offsets.weight": (0.1, 0.05),
    "transformer.reference_points.weight": (0.1, 0.05),
    "transformer.level_embeds": (1.0, 0.05),
}


def test_every_layer_has_its_rate():
    weights = {name: torch.nn.Parameter(torch.zeros(1)) for name in EXPECTED}
    names = {id(weight): name for name, weight in weights.items()}
    optimizer = make_optimizer(weights, OptimizerConfig())
    found = {
        names[id(weight)]: (group["base"] / 2e-4, group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert found == {name: pytest.approx(value) for name, value in EXPECTED.items()}
    assert {tuple(group["betas"]) for group in optimizer.param_groups} == {(0.9, 0.999)}


def test_all_weights_learn_but_the_zero_token():
    network = Ape(shrunk_config(PRESETS["D"]))
    learnt = learnt_weights(network)
    assert set(dict(network.named_parameters())) - set(learnt) == {"name_prompt_fusion_feature"}
    assert not network.name_prompt_fusion_feature.requires_grad
    assert all(weight.requires_grad for weight in learnt.values())


def tiny_vit():
    torch.manual_seed(0)
    return Ape(shrunk_config(PRESETS["D"])).backbone.net


def test_blocks_are_left_out_for_whole_images():
    plain, dropped = tiny_vit(), tiny_vit()
    add_drop_path(dropped, 0.5)
    images = torch.randn(1, 3, 64, 64).expand(64, -1, -1, -1)
    with torch.no_grad():
        found, whole = dropped.train()(images), plain(images[:1])
        without = plain.blocks[0](plain.patch_embed(images[:1]) + _positions(plain))
    # Two branches of the last block, each kept or not: four results, each of whole images.
    kinds = {tuple(one.flatten()[:50].tolist()) for one in found}
    assert len(kinds) == 4
    near = (found - without.permute(0, 3, 1, 2)).abs().amax((1, 2, 3)) < 1e-5
    assert 0.1 < near.float().mean() < 0.45  # a quarter skip the last block
    with torch.no_grad():
        torch.testing.assert_close(dropped.eval()(images[:1]), whole)
    assert dropped.state_dict().keys() == plain.state_dict().keys()


class Masks:
    """In place of dropout: leaves the same weights out in both forms of the block."""

    def __init__(self):
        self.made = []

    def drawn(self, weights, rate):
        kept = (torch.rand(weights.shape) >= rate) / (1 - rate)
        self.made.append(kept)
        return weights * kept


def written(block, vision, text, of_text, of_vision):
    """`BiAttention` as GLIP writes it, with these masks (B, heads, T, N) of attention weights."""
    q, k = block.by_head(block.v_proj(vision)), block.by_head(block.l_proj(text))
    scores = q @ k.mT * block.head_dim**-0.5  # (B, heads, N, T)
    from_text = (scores.softmax(-1) * of_vision.mT) @ block.by_head(block.values_l_proj(text))
    from_vision = (scores.mT.softmax(-1) * of_text) @ block.by_head(block.values_v_proj(vision))
    return [
        project(x.transpose(1, 2).flatten(2))
        for project, x in ((block.out_v_proj, from_text), (block.out_l_proj, from_vision))
    ]


@pytest.mark.parametrize("tokens", [1, 5])
def test_dropout_of_the_fusion_is_that_of_attention_weights(tokens, monkeypatch):
    torch.manual_seed(0)
    block = fusion.BiAttention(12, 10, width=16, heads=4)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # biases too
    vision, text = torch.randn(2, 30, 12), torch.randn(2, tokens, 10)
    without = block(vision, text)
    add_fusion_dropout(block, 0.4)
    masks = Masks()
    monkeypatch.setattr(fusion.F, "dropout", masks.drawn)
    found = block(vision, text)
    for ours, theirs in zip(found, written(block, vision, text, *masks.made), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert len(masks.made) == 2
    # In inference nothing is left out, to the bit.
    for ours, theirs in zip(block.eval()(vision, text), without, strict=True):
        assert torch.equal(ours, theirs)


def test_checkpointed_fusion_draws_the_same_dropout_twice():
    torch.manual_seed(0)
    network = fusion.FusionBlock(12, 10, width=16, heads=4)
    add_fusion_dropout(network, 0.4)
    vision, text = torch.randn(2, 30, 12), torch.randn(2, 5, 10)

    def gradients(run):
        torch.manual_seed(7)
        network.zero_grad()
        sum(out.square().sum() for out in run(vision, text)).backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    twice = partial(checkpoint, network, use_reentrant=False)
    for one, other in zip(gradients(network), gradients(twice), strict=True):
        assert torch.equal(one, other)


def _positions(vit):
    return vit.pos_embed[:, 1:].unflatten(1, (4, 4))


def row_data(row, things, stuff):
    names = [f"name {k}" for k in range(things + stuff)]
    shown = np.array([[image, k] for k in range(things) for image in range(k + 1)], np.int32)
    return RowData(row, Path(), names, things, [b"[]"] * 9, np.ones((9, 2), np.int32), shown)


def test_stuff_is_drawn_as_a_frequent_class_or_always_there():
    row = read_official_recipe(RECIPES / "ape_A.toml").data[0]
    kth = class_counts(row_data(row, 8, 2))
    padded = class_counts(row_data(replace(row, federated_pad="cat"), 8, 2))
    # Eight classes of 1..8 images; the seventh of ten, in order, has 7.
    assert kth.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 7, 7]
    assert padded.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]


def test_older_states_are_kept(tmp_path):
    for step in range(4):
        write_state(tmp_path, {"step": step}, keep=3)
    steps = {path.name: torch.load(path)["step"] for path in tmp_path.iterdir()}
    assert steps == {"state.pt": 3, "state.1.pt": 2, "state.2.pt": 1}
    alone = tmp_path / "alone"
    alone.mkdir()
    for step in range(2):
        write_state(alone, {"step": step})
    assert [path.name for path in alone.iterdir()] == ["state.pt"]


def test_a_backbone_starts_from_published_weights(tmp_path):
    torch.manual_seed(1)
    given = Ape(shrunk_config(PRESETS["D"])).backbone.net
    state = {f"visual.{key}": value for key, value in given.state_dict().items()}
    del state["visual.blocks.1.norm2.bias"]
    torch.save({"module": state | {"text.positional_embedding": torch.zeros(3)}}, tmp_path / "a.pt")
    vit = tiny_vit()
    line = load_backbone(vit, tmp_path / "a.pt")
    assert re.fullmatch(
        r"backbone: (\d+) of (\d+) weights from a\.pt; random: blocks\.1\.norm2\.bias", line
    )
    torch.testing.assert_close(vit.pos_embed, given.pos_embed)
    torch.testing.assert_close(vit.blocks[1].norm2.weight, given.blocks[1].norm2.weight)
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt has no weight of this backbone"):
        load_backbone(vit, tmp_path / "b.pt")
