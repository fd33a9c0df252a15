"""The two models that ship: what they know, what they share, how large they are."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from ape_model import load
from ape_model.config import NANO
from ape_model.io.safetensors_io import read_metadata, read_safetensors
from ape_model.loading import load_text_encoder
from ape_model.training.command import RECIPES
from ape_model.training.data.world_dataset import WorldBatches
from ape_model.training.export import recipe_hash
from ape_model.training.recipe import read_recipe
from ape_model.training.validate import validate
from ape_model.weights.built_in import ASSETS, BUILT_IN, TEXT
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import content_digest
from ape_model.world import World

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "sidewalk",
    "tree",
    "traffic sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def test_both_fit_into_a_package_and_share_one_text_tower():
    sizes = {path.name: path.stat().st_size for path in ASSETS.glob("*.safetensors")}
    assert set(sizes) == {TEXT, "nano.safetensors", "street.safetensors"}
    assert sizes.pop(TEXT) <= 4_000_000
    assert max(sizes.values()) <= 8_000_000
    assert {find_model(name).text for name in BUILT_IN} == {ASSETS / TEXT}
    tensors, _ = read_safetensors(ASSETS / TEXT)
    trained_with = read_metadata(ASSETS / "street.safetensors")["text_sha256"]
    assert trained_with == content_digest(tensors)


def test_street_knows_the_names_of_streets_and_those_of_nano():
    nano, street = find_model("nano"), find_model("street")
    assert nano.vocabulary < street.vocabulary
    assert street.vocabulary >= {*CLASSES, "automobile", "vehicle", "street", "person", "cyclist"}
    assert street.stuff >= {"road", "street", "sky", "building", "pole"}
    assert not street.stuff & {"car", "vehicle", "pedestrian", "person", "bicyclist"}


def test_the_recipe_in_the_repository_is_the_one_that_made_street():
    label = read_metadata(ASSETS / "street.safetensors")
    recipe = read_recipe(RECIPES / "street.toml")
    assert label["recipe"] == recipe_hash(recipe)
    assert int(label["steps"]) == recipe.loop.steps
    assert json.loads(label["names"])


def test_all_weights_of_street_are_half_floats_and_finite():
    tensors, _ = read_safetensors(ASSETS / "street.safetensors")
    floats = [value for value in tensors.values() if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float16}
    assert all(bool(value.isfinite().all()) for value in floats)


@pytest.mark.parametrize("model", list(BUILT_IN))
def test_the_drawn_world_is_known_to_both(model):
    world, network = World(), load(model, "cpu")
    encode = load_text_encoder(find_model(model), torch.device("cpu"), torch.float32).encode
    names = encode([name.casefold() for name in world.names])
    recipe = read_recipe(RECIPES / "street.toml")
    drawn = WorldBatches(recipe.phases, seed=0, network=NANO, steps=1)
    scenes = [drawn.unseen(1_000_000 + k) for k in range(4)]
    found = validate(network, names, world.things, scenes)
    assert found["things_ap50"] >= 0.6
    assert found["stuff_ap50"] >= 0.6
    assert found["absent"] <= 1


def test_a_new_field_of_recipes_leaves_their_digests_as_they_are():
    @dataclass
    class Before:
        steps: int = 100
        parts: tuple[object, ...] = ()

    @dataclass
    class After(Before):
        added: float = 0.5

    assert recipe_hash(Before(7, (Before(9),))) == recipe_hash(After(7, (After(9),)))
    assert recipe_hash(After(7)) != recipe_hash(After(7, added=0.6))
    assert recipe_hash(Before(7)) != recipe_hash(Before(8))
