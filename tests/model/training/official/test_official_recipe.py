"""The recipes of the released models against the tables of the official configurations."""

from pathlib import Path

import pytest

from ape_model.config import PRESETS
from ape_model.training.command import RECIPES, find_recipe
from ape_model.training.errors import RecipeError
from ape_model.training.official.recipe import is_official, read_official_recipe

MODELS = ("A", "B", "C", "D", "Ti")
LVIS, O365, OID = (
    "lvis_v1_train+coco_panoptic_separated",
    "objects365_train_fixname",
    "openimages_v6_train_bbox_nogroup",
)
VG150, VG, REFCOCO = (
    "visualgenome_150_box_train",
    "visualgenome_77962_box_and_region",
    "refcoco-mixed_group-by-image",
)
GROUNDED = ("gqa_region_train", "phrasecut_train", "flickr30k_separateGT_train")
ROWS = {
    "A": (LVIS, O365, OID, VG150),
    "B": (LVIS, O365, OID, VG, REFCOCO),
    "C": (LVIS, O365, OID, VG, "sa1b_4m", REFCOCO),
    "D": (LVIS, O365, OID, VG, "sa1b", REFCOCO, *GROUNDED),
}
ROWS["Ti"] = ROWS["D"]
CLASSES = {
    "A": (1256, 365, 601, 150),
    "B": (1256, 365, 601, 200, 200),
    "C": (1256, 365, 601, 200, 1, 200),
    "D": (1256, 365, 601, 256, 1, 256, 256, 256, 256),
}
CLASSES["Ti"] = CLASSES["D"]
FULL = {"class", "bbox", "giou", "mask", "dice"}
FIRST_STAGE = {"class", "bbox", "giou"}


@pytest.fixture(scope="module")
def recipes():
    return {name: read_official_recipe(RECIPES / f"ape_{name}.toml") for name in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_those_of_the_configuration(recipes, model):
    recipe = recipes[model]
    assert recipe.model == model
    assert tuple(row.name for row in recipe.data) == ROWS[model]
    assert tuple(row.classes for row in recipe.data) == CLASSES[model]
    for row in recipe.data:
        names = row.name in {LVIS, O365, OID, VG150} or row.name.startswith("sa1b")
        assert row.prompts == ("name" if names else "phrase")
        assert row.ratio == (0.1 if row.name in {REFCOCO, *GROUNDED} else 1)
        assert row.repeat == (0.001 if row.name in {LVIS, O365, OID} else 0)
        assert row.copy_paste == (0.5 if row.name == LVIS else 0)
        assert row.keep_empty == row.name.startswith("sa1b")
        assert bool(row.stuff) == (row.name == LVIS)


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_masked_as_in_the_configuration(recipes, model):
    for row in recipes[model].data:
        decoder, encoder = FULL, FIRST_STAGE
        if row.name in {VG, *GROUNDED}:
            decoder, encoder = {"class"}, set()
            if model in {"B", "C"}:  # they leave the mask terms on; the set has no masks
                decoder = {"class", "mask", "dice"}
        elif row.name.startswith("sa1b"):
            decoder = FULL - {"class"}
        elif row.name == REFCOCO:
            encoder = FIRST_STAGE - {"class"}
        assert (set(row.decoder), set(row.encoder)) == (decoder, encoder), row.name
        assert row.criterion.weights == {"class": 1, "bbox": 5, "giou": 2, "mask": 5, "dice": 5}
        assert (row.criterion.alpha, row.criterion.gamma) == (0.25, 2)


@pytest.mark.parametrize("model", MODELS)
def test_federated_classes(recipes, model):
    large = model in {"D", "Ti"}
    for row in recipes[model].data:
        federated = row.name == LVIS or (large and row.name == OID)
        assert row.federated == (50 if federated else 0)
        assert row.federated_pad == ("cat" if federated and model != "A" else "kth")


@pytest.mark.parametrize(
    ("model", "schedule", "accumulate", "mixture", "phrases", "drop_path", "checkpointing"),
    [
        ("A", (720_000, 640_000, 1000), 1, "mixed", (100, 0.8), 0.4, {"backbone"}),
        ("B", (1_080_000, 900_000, 2000), 1, "mixed", (100, 0.6), 0.4, {"backbone", "fusion"}),
        ("C", (1_080_000, 900_000, 2000), 1, "mixed", (100, 0.6), 0.4, {"backbone", "fusion"}),
        (
            "D",
            (1_080_000, 900_000, 8000),
            4,
            "separate",
            (128, 0.6),
            0.4,
            {"backbone", "encoder", "fusion"},
        ),
        ("Ti", (1_080_000, 900_000, 8000), 4, "separate", (128, 0.6), 0.8, {"encoder", "fusion"}),
    ],
)
def test_schedules_and_habits(
    recipes, model, schedule, accumulate, mixture, phrases, drop_path, checkpointing
):
    recipe = recipes[model]
    own = recipe.schedule
    assert (own.steps, own.drop_at, own.warm_up) == schedule
    assert (own.warm_up_from, own.drop) == (0.001, 0.1)
    assert (recipe.accumulate, recipe.mixture, recipe.drop_path) == (accumulate, mixture, drop_path)
    assert recipe.fusion_dropout == 0.1  # of all configurations with a fusion
    augmentation = recipe.augmentation
    assert (augmentation.most_phrases, augmentation.phrase_iou) == phrases
    assert (augmentation.scale, augmentation.scale_with_crop) == ((0.1, 1.0), (0.1, 2.0))
    assert (augmentation.canvas, augmentation.flip) == (1024, 0.5)
    assert set(recipe.checkpointing) == checkpointing
    assert recipe.workers == (18 if model in {"D", "Ti"} else 4)


@pytest.mark.parametrize("model", MODELS)
def test_what_all_five_share(recipes, model):
    recipe = recipes[model]
    optimizer = recipe.optimizer
    assert (optimizer.learning_rate, optimizer.betas) == (2e-4, (0.9, 0.999))
    assert (optimizer.weight_decay, optimizer.clip) == (0.05, 0.1)
    assert (optimizer.layer_decay, optimizer.decay_layers) == (0.8, 24)
    assert (recipe.batch, recipe.precision, recipe.compress) == (16, "float16", True)
    assert (recipe.save_every, recipe.keep, recipe.report_every) == (5000, 2, 20)


@pytest.mark.parametrize(
    ("model", "init", "tower", "fusion", "window"),
    [
        ("A", "eva02_L_pt_in21k_p14to16", "eva01-g", False, 16),
        ("B", "eva02_L_pt_in21k_p14to16", "eva01-g", True, 16),
        ("C", "eva02_L_pt_in21k_p14to16", "eva01-g", True, 16),
        ("D", "EVA02_CLIP_L_336_psz14to16_s6B", "eva02-bigE", True, 32),
        ("Ti", "eva02_Ti_pt_in21k_p14to16", "eva02-bigE", True, 14),
    ],
)
def test_networks(recipes, model, init, tower, fusion, window):
    preset = PRESETS[model]
    assert recipes[model].init == init
    assert (preset.text_tower, preset.fusion, preset.backbone.window) == (tower, fusion, window)
    assert preset.ambiguous_heads == (1 if model in {"D", "Ti"} else 0)


def test_the_learning_rate_rises_holds_and_drops(recipes):
    schedule = recipes["D"].schedule
    assert schedule.factor(0) == pytest.approx(0.001)
    assert schedule.factor(4000) == pytest.approx((1 + 0.001) / 2)
    assert schedule.factor(8000) == schedule.factor(899_999) == 1
    assert schedule.factor(900_000) == schedule.factor(1_079_999) == 0.1


def test_a_recipe_of_a_released_model_names_it(recipes):
    assert recipes
    assert is_official(RECIPES / "ape_Ti.toml")
    assert not is_official(RECIPES / "nano.toml")


ROW = 'name = "a"\nannotations = "a.json"\nimages = "a"\nclasses = 3\n'
TOP = 'model = "D"\ninit = "a"\nmixture = "separate"\n'
SCHEDULE = "[schedule]\nsteps = 4\ndrop_at = 3\nwarm_up = 1\n"
WHOLE = f"{TOP}{SCHEDULE}[[data]]\n{ROW}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WHOLE.replace('"D"', '"E"'), "model is 'E': it must be one of A, B, C, D, Ti"),
        (WHOLE + "ratio = 0", "ratio is 0.0: it must be above 0"),
        (WHOLE + "repeat = 2", "repeat is 2.0: it must be within 0..1"),
        (WHOLE + 'decoder = ["iou"]', "no term 'iou'"),
        (WHOLE + "decoder = []\nencoder = []", "at least one of decoder and encoder"),
        (WHOLE + 'stuff = "a"', "stuff and stuff_maps belong together"),
        (WHOLE + 'prompts = "phrase"\nfederated = 5', "federated is for names"),
        (WHOLE + 'prompts = "phrase"\ncopy_paste = 0.5', "copy_paste is for names"),
        (WHOLE + 'prompts = "word"', "'prompts' in .*"),
        (WHOLE.replace("steps = 4", "steps = 0"), "steps is 0: it must be at least 1"),
        (WHOLE.replace("classes = 3\n", ""), "needs 'classes'"),
        (TOP + SCHEDULE, "needs 'data'"),
        ("batch = 0\n" + WHOLE, "batch is 0: it must be at least 1"),
        ('checkpointing = ["neck"]\n' + WHOLE, "checkpointing has no part 'neck'"),
        ('precision = "int8"\n' + WHOLE, "precision is 'int8': it must be one of"),
        (WHOLE + "[optimizer]\nclip = 0", "clip is 0.0: it must be above 0"),
        (
            WHOLE + "[augmentation]\nscale = [2.0, 1.0]",
            r"scale is \[2.0, 1.0\]: it must be a range",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        read_official_recipe(path)
    assert "\n" not in str(caught.value)


def test_values_of_the_command_line_replace_those_of_the_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(WHOLE)
    recipe = read_official_recipe(path, steps=9, seed=7)
    assert (recipe.schedule.steps, recipe.seed, recipe.schedule.drop_at) == (9, 7, 3)
    assert read_official_recipe(path, steps=None).schedule.steps == 4


def test_a_shipped_recipe_is_found_by_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("ape_D")) == RECIPES / "ape_D.toml"
    Path("ape_D").write_text("a file of the user's comes first")
    assert find_recipe(Path("ape_D")) == Path("ape_D")
    with pytest.raises(RecipeError, match="ape_E is no file and no recipe that ships: ape_A, "):
        find_recipe(Path("ape_E"))
