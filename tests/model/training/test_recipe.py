"""Recipes: what is written is what runs, and what does not fit is refused in one line."""

import pytest

from ape_model.training.command import RECIPES
from ape_model.training.data.config import DataConfig
from ape_model.training.errors import RecipeError
from ape_model.training.recipe import read_recipe

PHASE = """
[[phase]]
first = 0
canvases = [{height = 64, width = 64, batch = 1}]
"""


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["nano.toml", "nano_further.toml", "nano_shapes.toml"])
def test_shipped_recipes_are_complete(name):
    recipe = read_recipe(RECIPES / name, steps=7, seed=None)
    assert recipe.loop.steps == 7
    assert recipe.phases[0].first == 0
    assert recipe.data == (DataConfig(),)


def test_the_recipe_for_own_images_leaves_canvas_and_source_open():
    recipe = read_recipe(RECIPES / "finetune.toml")
    assert recipe.loop.steps > 400
    assert not recipe.phases[0].canvases[0].has_sides
    [data] = recipe.data
    assert not data.source
    assert data.held_back == 0.1


def test_data_sets_are_read_in_order(tmp_path):
    text = """steps = 1
classification = "focal"
[[data]]
[[data]]
source = "phrases.json"
ratio = 0.1
prompts = "phrase"
memory = 256
scale = [0.5, 1]
"""
    recipe = read_recipe(write(tmp_path, text + PHASE))
    phrases = DataConfig("phrases.json", ratio=0.1, prompts="phrase", memory=256, scale=(0.5, 1))
    assert recipe.data == (DataConfig(), phrases)
    assert recipe.loop.classification == "focal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 1\nspeed = 2", "unknown key 'speed' in .*; it has: steps, "),
        ("seed = 1", "needs 'steps'"),
        ("steps = 0", "steps is 0: it must be at least 1"),
        ("steps = true", "'steps' in .* must be a whole number, got True"),
        ("steps = 1.5", "'steps' in .* must be a whole number, got 1.5"),
        ("steps = 1\nlearning_rate = 'fast'", "'learning_rate' in .* must be a number, got 'fast'"),
        ("steps = 1\nlearning_rate = -1.0", "learning_rate is -1.0: it must be above 0"),
        ("steps = 1\nema = 1.0", "ema is 1.0: it must be within 0..1 and below 1"),
        ("steps = 1\nprecision = 'bfloat16'", "precision of nano is float32"),
        ("steps = 1\nclassification = 'soft'", "'soft': it must be one of quality, focal"),
        ("steps =", "is not a recipe"),
        ("steps = 1\nphase = 3", r"phase must be written \[\[phase\]\]"),
        ("steps = 1\n[[data]]\nsource = 'a'\nkind = 'phrase'", "unknown key 'kind' in .*data 0"),
        (
            "steps = 1\n[[data]]\nsource = 'a'\nprompts = 'words'",
            "data 0: prompts is 'words': it must",
        ),
        ("steps = 1\n[[data]]\nratio = 0", "data 0: ratio is 0.0: it must be above 0"),
        (
            "steps = 1\n[[data]]\nscale = [2.0, 1.0]",
            r"data 0: scale is \[2.0, 1.0\]: it must be a range",
        ),
        (
            "steps = 1\n[[data]]\nsource = 'a'\nphotometric = 2",
            "photometric is 2.0: it must be within 0..1",
        ),
        ("steps = 1\n[[data]]\nsource = 'a'\nheld_back = 1.0", "held_back is 1.0: it must be"),
        ("steps = 1\n[[data]]\nheld_back = 0.1", "held_back and validation are for images"),
        ("steps = 1\n[[data]]\nsemantic = 1.0", "semantic is for COCO data"),
        (
            "steps = 1\n[[data]]\nstuff_in_parts = 1",
            "'stuff_in_parts' in .* must be true or false, got 1",
        ),
        ("steps = 1\n[[data]]\nscale = 2.0", "'scale' in .* must be a list"),
        ("steps = 1\n[[data]]\nfederated = 50", "data 0: federated is for the vocabulary"),
        (
            "steps = 1\n[[data]]\nprompts = 'phrase'",
            "data 0: phrases of the world are set by sentence_share",
        ),
        ("steps = 1\n[[data]]\nsource = 'a'\nmemory = 9", "data 0: memory is for phrases"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(tmp_path, text, message):
    path = write(tmp_path, text if "phase" in text else text + PHASE)
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ("", "the first .* starts at step 0"),
        (PHASE.replace("first = 0", "first = 5"), "the first .* starts at step 0"),
        (PHASE + PHASE, "later ones after it"),
        (PHASE.replace("batch = 1", "batch = 0"), "batch is 0: it must be at least 1"),
        ("[[phase]]\nfirst = 0", "phase 0 needs 'canvases'"),
        (PHASE + "sentence_share = 2.0", "sentence_share is 2.0: it must be within 0..1"),
        (PHASE.replace("64", "95") + "sentence_share = 0.5", "sides of at least 96 pixels"),
        (PHASE.replace("batch = 1", "batch = 1, vary = 1.0"), "vary is 1.0: it must be"),
        (PHASE.replace("batch = 1", "batch = 1, zoom = 0.5"), "zoom is 0.5: it must be at least 1"),
        (PHASE.replace("batch = 1", "batch = 1, names = 0"), "one canvas is for names"),
        (PHASE.replace("first = 0", ""), "phase 0 needs 'first'"),
    ],
)
def test_phases_that_do_not_fit_are_refused(tmp_path, phase, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(write(tmp_path, "steps = 1\n" + phase))


def test_keys_of_before_the_renaming_are_read_with_a_warning(tmp_path, caplog):
    text = "steps = 1\nstrangers = 7\n[[data]]\nsource = 'a'\npictures = 'there'\n"
    old = read_recipe(write(tmp_path, text + PHASE.replace("phase", "stage")))
    for former, now in (
        ("stage", "phase"),
        ("strangers", "negative_words"),
        ("pictures", "images"),
    ):
        assert f"{former} is called {now} now" in caplog.text
    caplog.clear()
    text = text.replace("strangers", "negative_words").replace("pictures", "images")
    assert read_recipe(write(tmp_path, text + PHASE)) == old
    assert old.loop.negative_words == 7
    assert not caplog.text


def test_a_key_under_both_names_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="strangers is the former name of negative_words"):
        read_recipe(write(tmp_path, "steps = 1\nstrangers = 7\nnegative_words = 7\n" + PHASE))
