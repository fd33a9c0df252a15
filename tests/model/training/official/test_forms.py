"""Forms of one training step: activation checkpointing and mixed precision give the same losses."""

from dataclasses import replace

import pytest
import torch

from ape_model.config import PRESETS
from ape_model.network.ape import Ape
from ape_model.training.command import RECIPES
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.check import encode_at_random, shrunk_config, shrunk_recipe
from ape_model.training.official.miniature import write_miniature_data
from ape_model.training.official.recipe import read_official_recipe
from ape_model.training.official.records import read_row
from ape_model.training.official.run import build_run

STEPS = 3
PARTS = ("backbone", "encoder", "fusion")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Recipe D with one data set of names and masks, and one of phrases; and their batches."""
    root = tmp_path_factory.mktemp("data")
    whole = read_official_recipe(RECIPES / "ape_D.toml")
    small = shrunk_recipe(replace(whole, data=(whole.data[0], whole.data[6])), STEPS)
    write_miniature_data(small, root)
    rows = [read_row(row, root) for row in small.data]
    batches = OfficialBatches(small, rows, shrunk_config(PRESETS["D"]))
    return small, rows, [batches.batch(step % 2, step) for step in range(STEPS)]


def learnt(data, folder, precision="float32", **changes):
    """Losses of every step, and the weights at the end."""
    recipe, rows, batches = data
    recipe = replace(recipe, accumulate=1, **changes)
    config = shrunk_config(PRESETS["D"])
    torch.manual_seed(0)
    run = build_run(
        recipe, rows, Ape(config), encode_at_random(config.text_width), folder, lambda _: None
    )
    engine = run.engine
    engine.config = replace(engine.config, precision=precision)
    return [engine.advance(batch) for batch in batches], run.network.state_dict()


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return learnt(data, tmp_path_factory.mktemp("plain"), checkpointing=())


def test_activation_checkpointing_changes_no_bit(data, plain, tmp_path):
    losses, weights = learnt(data, tmp_path, checkpointing=PARTS)
    assert losses == plain[0]
    assert all(torch.equal(weights[key], value) for key, value in plain[1].items())


def test_mixed_precision_keeps_weights_and_losses(data, plain, tmp_path):
    losses, weights = learnt(data, tmp_path, "bfloat16", checkpointing=PARTS)
    for found, exact in zip(losses, plain[0], strict=True):
        assert found.keys() == exact.keys()
        assert found != exact  # it was computed in another precision
        assert sum(found.values()) == pytest.approx(sum(exact.values()), rel=0.05)
    assert all(weights[key].dtype == value.dtype for key, value in plain[1].items())
    assert all(bool(value.isfinite().all()) for value in weights.values())
