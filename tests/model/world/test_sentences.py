"""Sentences are true of their target and of no distractor."""

import numpy as np
import pytest

from ape_model.world import World
from ape_model.world.scene import Actor, Compositor, Region
from ape_model.world.sentences import phrases_of
from ape_model.world.sprites import Pose


@pytest.fixture(scope="module")
def world():
    return World()


def _scene(world, placed, regions=None):
    """A compositor of (name, x, y, side) things on stuffs of these upper borders (0..1)."""
    names = list(world.names)
    backdrop = tuple(Region(names.index(n), b) for n, b in (regions or {"sky": 0.0}).items())
    compositor = Compositor(world.words, backdrop, (200, 200))
    ground = np.array([r.class_id for r in backdrop], np.int32)[compositor.ids - 1]
    for k, (name, x, y, side) in enumerate(placed):
        c = names.index(name)
        assert compositor.add(Actor(10 + k, c, Pose(world.words.cells[c][0], x, y, side)), 0.6)
    return compositor.scene(), ground


def _phrases(world, placed, regions=None):
    return {p.text: p.target for p in phrases_of(*_scene(world, placed, regions), world.words)}


def test_two_of_a_noun_by_size_and_place(world):
    phrases = _phrases(world, [("fox", 40, 100, 30), ("fox", 150, 100, 60)])
    assert phrases == {
        "the smaller fox": 10,
        "the bigger fox": 11,
        "the leftmost fox": 10,
        "the rightmost fox": 11,
    }


def test_three_of_a_noun_take_the_superlative(world):
    phrases = _phrases(world, [("fox", 40, 40, 25), ("fox", 100, 100, 40), ("fox", 160, 160, 70)])
    assert phrases["the biggest fox"] == 12
    assert phrases["the smallest fox"] == 10
    assert phrases["the topmost fox"] == 10
    assert phrases["the lowest fox"] == 12


def test_equal_sizes_and_level_places_are_not_spoken_of(world):
    phrases = _phrases(world, [("fox", 40, 100, 40), ("fox", 150, 104, 44)])
    assert set(phrases) == {"the leftmost fox", "the rightmost fox"}


def test_relative_position_needs_one_clearly_on_that_side_and_the_rest_on_the_other(world):
    phrases = _phrases(world, [("fox", 30, 60, 40), ("fox", 170, 60, 40), ("drum", 100, 150, 40)])
    assert phrases["the fox left of the drum"] == 10
    assert phrases["the fox right of the drum"] == 11
    assert "the fox above the drum" not in phrases
    level = _phrases(world, [("fox", 30, 60, 40), ("fox", 98, 60, 40), ("drum", 100, 150, 40)])
    assert "the fox left of the drum" not in level


def test_relative_position_to_two_drums_makes_no_phrase(world):
    placed = [
        ("fox", 30, 60, 40),
        ("fox", 170, 60, 40),
        ("drum", 100, 150, 30),
        ("drum", 100, 40, 30),
    ]
    assert not any("fox left of" in text for text in _phrases(world, placed))


def test_on_needs_every_one_of_the_noun_to_stand_clearly(world):
    regions = {"sky": 0.0, "grass": 0.5}
    phrases = _phrases(world, [("fox", 40, 40, 40), ("fox", 150, 160, 40)], regions)
    assert phrases["the fox on the sky"] == 10
    assert phrases["the fox on the grass"] == 11
    astride = _phrases(world, [("fox", 40, 100, 40), ("fox", 150, 160, 40)], regions)
    assert not any(" on the " in text for text in astride)


def test_generated_sentences_have_a_target_and_same_noun_distractors(world):
    relations = set()
    for seed in range(60):
        spoken = world.sentence_scene(seed)
        by_id = {i.id: i for i in spoken.scene.instances}
        assert spoken.phrases
        assert len({p.text for p in spoken.phrases}) == len(spoken.phrases)
        for phrase in spoken.phrases:
            relations.add(phrase.relation)
            noun = by_id[phrase.target].class_id
            assert world.names[noun] in phrase.text
            same = {i.id for i in spoken.scene.instances if i.class_id == noun}
            assert set(phrase.distractors) == same - {phrase.target}
            assert phrase.distractors
    assert relations == {"size", "extreme", "relative", "on"}


def test_sentences_are_deterministic(world):
    one, again = world.sentence_scene(7), World().sentence_scene(7)
    assert one.phrases == again.phrases
    np.testing.assert_array_equal(one.scene.image, again.scene.image)
