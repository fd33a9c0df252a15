"""The gate before vision training: the shipped text tower distinguishes names and knows words."""

import pytest
import torch

from ape_model.loading import load_text_encoder
from ape_model.training.text_tower.check import measure_diversity
from ape_model.weights.registry import find_model
from ape_model.world import World


@pytest.fixture(scope="module")
def encode():
    return load_text_encoder(find_model("nano"), torch.device("cpu"), torch.float32).encode


def names():
    return [name.casefold() for name in World().names]


def test_main_names_span_many_directions_and_none_hides_behind_another(encode):
    diversity = measure_diversity(encode(names()))
    assert diversity.effective_rank >= 20
    assert diversity.nearest_cosine < 0.7


def test_a_collapsed_tower_would_not_pass():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(100, 4, generator=generator) @ torch.randn(4, 128, generator=generator)
    diversity = measure_diversity(torch.nn.functional.normalize(vectors + 3, dim=-1))
    assert diversity.effective_rank < 20
    assert diversity.nearest_cosine > 0.7


def test_most_synonyms_are_nearest_to_their_own_name(encode):
    world = World()
    further = world.prompts[len(world.names) :]
    nearest = (encode([p.text.casefold() for p in further]) @ encode(names()).T).argmax(1)
    right = [int(n) in p.class_ids for n, p in zip(nearest, further, strict=True)]
    assert sum(right) / len(right) > 0.85


def test_words_that_no_class_has_still_mean_something(encode):
    dog, puppy, hound, lorry, truck = encode(["dog", "puppy", "dogs", "lorry", "truck"])
    assert dog @ puppy > 0.5
    assert dog @ hound > 0.5
    assert dog @ truck < 0.4
    assert lorry @ truck > lorry @ dog


def test_a_plural_and_a_misspelling_stay_near(encode):
    one, several, wrong, other = encode(["helicopter", "helicopters", "helicoptr", "broccoli"])
    assert one @ several > 0.6
    assert one @ wrong > one @ other
