"""Fine-tuning a released model, on tiny random ones in their shape."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ape_model.config import NANO, PRESETS
from ape_model.io.safetensors_io import read_metadata, read_safetensors
from ape_model.loading import load_network
from ape_model.network.ape import Ape
from ape_model.perceiver import ApePerceiver
from ape_model.text.cache import EmbeddingSpace
from ape_model.text.embedding_file import EmbeddingFile
from ape_model.training.data.held_back import split
from ape_model.training.engine import Engine
from ape_model.training.errors import DataError, RecipeError, TrainingError
from ape_model.training.finetuning.budget import Budget, check_budget, estimate
from ape_model.training.finetuning.config import FineTuneConfig, read_config
from ape_model.training.finetuning.dataset import TuneBatches
from ape_model.training.finetuning.features import FeatureStore, encoded, restore
from ape_model.training.finetuning.mode import Mode
from ape_model.training.finetuning.modes import TunedWeights
from ape_model.training.finetuning.run import BANK_FILE, FineTuneOptions, fine_tune
from ape_model.training.official.check import shrunk_config
from ape_model.weights.import_official import FORMAT, TEXT_FILE, VISION_FILE
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import aliases_of, save_weights
from ape_stream.values.prompts import Prompt, PromptSet

DIGEST = "d" * 64
WORDS = ("sun dial", "plum", "old word", "other")
SETTINGS = """
steps = 3
batch = 2
workers = 0
negative_words = 1
report_every = 1
warm_up = 0
rank = 2
clip = 1.0
"""


def tiny_config(variant):
    """The habits of a released model at a size for tests; words have the real width."""
    return replace(shrunk_config(PRESETS[variant]), text_width=1024)


@pytest.fixture
def variant(request, monkeypatch):
    name = getattr(request, "param", "D")
    monkeypatch.setitem(PRESETS, name, tiny_config(name))
    return name


@pytest.fixture
def model(variant, tmp_path, home):  # noqa: ARG001 (an empty cache)
    """A folder as `models import` writes it, without its text tower."""
    config = PRESETS[variant]
    torch.manual_seed(0)
    network = Ape(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path / "model"
    label = {"format": FORMAT, "variant": variant, "part": "vision", "text_sha256": DIGEST}
    label["text_tower"] = config.text_tower
    save_weights(folder / VISION_FILE, network.state_dict(), aliases_of(network), label)
    return folder


@pytest.fixture
def bank(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "words.safetensors"
    EmbeddingFile(WORDS, torch.randn(4, 1024), EmbeddingSpace(DIGEST, "float32", "eot")).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    """Five images with a bright and a dark thing each."""
    images, annotations = [], []
    for k in range(5):
        pixels = np.full((48, 64, 3), 90, np.uint8)
        pixels[4 + k : 24 + k, 6:26] = 250
        pixels[20:44, 34 + k : 58 + k] = 10
        cv2.imwrite(str(tmp_path / f"{k}.png"), pixels)
        images.append({"id": k, "file_name": f"{k}.png", "height": 48, "width": 64})
        for category, box in ((1, [6, 4 + k, 20, 20]), (2, [34 + k, 20, 24, 24])):
            x, y, w, h = box
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            row = {"image_id": k, "category_id": category, "bbox": box, "segmentation": outline}
            annotations.append(row)
    categories = [{"id": 1, "name": "sun dial"}, {"id": 2, "name": "plum"}]
    path = tmp_path / "data.json"
    table = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(table))
    return path


@pytest.fixture
def tune(model, bank, data, tmp_path):
    """Fine-tunes the tiny model; gives the lines of the report and the folder."""
    settings = tmp_path / "settings.toml"
    settings.write_text(SETTINGS)

    def run(mode, name="out", **changes):
        lines = []
        options = FineTuneOptions(
            str(model), data, tmp_path / name, mode, settings, bank=bank, device="cpu"
        )
        fine_tune(replace(options, **changes), lines.append)
        return lines, tmp_path / name

    return run


LEARNT = {
    Mode.HEAD: r"(transformer\.decoder\.)?(class_embed|bbox_embed|mask_|lateral_conv|output_conv)",
    Mode.LORA: r"transformer\.(encoder|decoder)\..*weight$|(class|bbox)_embed.*weight$",
    Mode.FULL: r"(?!name_prompt_fusion_feature)",
}


@pytest.mark.parametrize(
    ("variant", "mode"),
    [("A", Mode.HEAD), ("B", Mode.LORA), ("C", Mode.HEAD), ("D", Mode.LORA), ("Ti", Mode.FULL)],
    indirect=["variant"],
)
def test_only_the_weights_of_the_mode_change_and_the_result_is_a_model(tune, model, mode):
    lines, out = tune(mode)
    before, label = read_safetensors(model / VISION_FILE)
    after, own = read_safetensors(out / VISION_FILE)
    assert after.keys() == before.keys()  # the official names
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all(re.match(LEARNT[mode], key) for key in changed), changed
    assert {key: own[key] for key in ("variant", "aliases", "text_sha256")} == {
        key: label[key] for key in ("variant", "aliases", "text_sha256")
    }
    assert json.loads(read_metadata(out / VISION_FILE)["names"]).count("sun dial") == 1
    files = find_model(out)
    load_network(files, torch.device("cpu"))
    # The score of before comes first, ahead of the first step.
    order = [k for k, line in enumerate(lines) if line.startswith(("before", "step", "after"))]
    assert lines[order[0]].startswith("before, held-back images: things_ap50")
    assert lines[order[-1]].startswith("after, held-back images")
    assert any("2 old words: best scores moved by" in line for line in lines)
    seen = ApePerceiver(model=str(out), bank=str(out / BANK_FILE), device="cpu", threshold=0.0)
    seen.prepare(PromptSet((Prompt("sun dial"), Prompt("old word"))))


def test_a_prompt_run_learns_a_few_numbers_and_touches_no_other_word(tune, bank):
    lines, out = tune(Mode.PROMPT)
    before, after = EmbeddingFile.load(bank), EmbeddingFile.load(out / BANK_FILE)
    assert after.texts == WORDS
    assert torch.equal(after.embeddings[2:], before.embeddings[2:])
    assert not torch.equal(after.embeddings[:2], before.embeddings[:2])
    assert after.space == before.space
    assert after.names == {"sun dial", "plum"}
    assert not (out / VISION_FILE).exists()
    assert (out / "state.pt").stat().st_size < 64_000
    assert any("moved by 0.0000" in line for line in lines)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_loss_falls_and_a_cut_off_run_goes_on_to_the_same_bits(tune, mode, monkeypatch):
    lines, whole = tune(mode, "whole", steps=4)
    losses = [
        float(line.split("loss ")[1].split(",")[0]) for line in lines if line.startswith("step")
    ]
    assert sum(losses[4:]) < sum(losses[:4])
    advance = Engine.advance

    def cut(engine, batch):
        if engine.step == 6:
            engine.save()
            raise KeyboardInterrupt
        return advance(engine, batch)

    monkeypatch.setattr(Engine, "advance", cut)
    with pytest.raises(KeyboardInterrupt):
        tune(mode, "cut", steps=4)
    monkeypatch.setattr(Engine, "advance", advance)
    lines, again = tune(mode, "cut", steps=4)
    assert any(line.startswith("resuming at image 6") for line in lines)
    for name in (VISION_FILE, BANK_FILE):
        if mode is not Mode.PROMPT or name == BANK_FILE:
            first, second = read_safetensors(whole / name)[0], read_safetensors(again / name)[0]
            assert all(torch.equal(first[key], second[key]) for key in first)


def test_features_on_disk_are_those_of_the_network_computed_once_and_bounded(
    model, data, tmp_path, monkeypatch
):
    from ape_stream.datasets.coco import read_coco  # noqa: PLC0415

    network = load_network(find_model(model), torch.device("cpu")).train()
    config = FineTuneConfig(views=2)
    batch = TuneBatches(read_coco(data), config, PRESETS["D"], steps=1, views=2).view(0, 1)
    store = FeatureStore(tmp_path / "kept", "space", 10**9)
    runs = []
    monkeypatch.setattr(
        network.backbone,
        "forward",
        lambda x, own=network.backbone.forward: runs.append(1) or own(x),
    )
    for _ in range(2):
        kept = store.get(batch.key, lambda: encoded(network, batch))
    assert runs == [1]
    features, memory = restore(network, batch, kept)
    prompts = network.vocabulary(torch.randn(2, 1024))
    with torch.no_grad():
        whole = network.encode_image(batch.images, batch.sizes)
        wanted = network.encode(whole, prompts)[0]
    torch.testing.assert_close(memory, wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features.lateral, whole.lateral, rtol=1e-3, atol=1e-3)
    assert torch.equal(features.geometry.anchors, whole.geometry.anchors)
    full = FeatureStore(tmp_path / "none", "space", 10)
    full.get(batch.key, lambda: kept)
    assert (full.kept, full.refused) == (0, 1)
    assert not (tmp_path / "none").exists()
    # A file that was cut off is computed again.
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert store.get(batch.key, lambda: encoded(network, batch)).keys() == kept.keys()
    assert runs == [1, 1, 1]


def test_low_rank_changes_start_at_nothing_and_vanish_into_the_matrices(shaken):
    network = shaken(tiny_config("D"))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weights = TunedWeights(network, Mode.LORA, FineTuneConfig(rank=2))
    image, words = torch.randn(1, 3, 64, 64), torch.randn(3, 1024)
    first = network(image, network.vocabulary(words)).logits
    for name, parameter in weights.parameters.items():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.01)
    changed = network(image, network.vocabulary(words)).logits
    learnt = weights.finish()
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before.keys() - learnt)
    torch.testing.assert_close(network(image, network.vocabulary(words)).logits, changed)
    network.load_state_dict(before)
    torch.testing.assert_close(network(image, network.vocabulary(words)).logits, first)


@pytest.mark.parametrize("canvas", [64, 256])
@pytest.mark.parametrize("mode", [Mode.LORA, Mode.FULL])
def test_the_estimate_of_activations_is_of_the_right_size(shaken, mode, canvas):
    config = replace(tiny_config("D"), canvas=canvas)
    network = shaken(config)
    TunedWeights(network, mode, FineTuneConfig(rank=2))
    storages = {}

    def count(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        with torch.set_grad_enabled(mode is Mode.FULL):
            features = network.encode_image(torch.randn(1, 3, canvas, canvas))
        outputs = network.head(features, network.vocabulary(torch.randn(5, 1024)))
    saved = sum(size for pointer, size in storages.items() if pointer not in own)
    assert outputs.logits.requires_grad
    budget = estimate(config, mode, weights=1, learnt=1, prompts=5, checkpointing=False)
    assert 0.4 < budget.activations / saved < 2.5


def test_a_run_that_does_not_fit_is_refused_in_one_line(tune):
    with pytest.raises(TrainingError, match=r"the run needs .* and 0.00 MB are allowed") as caught:
        tune(Mode.FULL, memory=1)
    assert "\n" not in str(caught.value)
    check_budget(Budget(1, 2, 3, 4), torch.device("cpu"), 10)


def test_a_word_without_a_vector_is_named_with_what_makes_one(tune):
    from ape_model.errors import PromptTextError  # noqa: PLC0415

    with pytest.raises(PromptTextError, match="no embedding of 'sun dial'"):
        tune(Mode.PROMPT, bank=None)


def test_another_file_may_hold_the_score_and_what_was_known_before(tune, data, tmp_path):
    table = json.loads(data.read_text())
    table["categories"][1]["name"] = "other"
    (tmp_path / "old.json").write_text(json.dumps(table))
    lines, _ = tune(Mode.HEAD, validation=tmp_path / "old.json", old_data=tmp_path / "old.json")
    assert any(line.startswith("before, validation: things_ap50") for line in lines)
    assert any(line.startswith("after, old data old.json: things_ap50") for line in lines)
    table["categories"] = [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]
    (tmp_path / "none.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"none\.json has no region of sun dial, plum"):
        tune(Mode.HEAD, validation=tmp_path / "none.json")


def test_images_are_split_and_come_up_in_turn(data):
    from ape_stream.datasets.coco import read_coco  # noqa: PLC0415

    whole = read_coco(data)
    learnt, aside = split(whole, 0.2, 0)
    assert (len(learnt.images), len(aside.images)) == (4, 1)
    assert not {image.path for image in learnt.images} & {image.path for image in aside.images}
    batches = TuneBatches(learnt, FineTuneConfig(), NANO, steps=8, views=1)
    assert len({batches[k].key for k in range(4)}) == 4
    assert {batches[k].key for k in range(4)} == {batches[k].key for k in range(4, 8)}
    # As inference sees it: the long side fits, and nothing is padded.
    assert batches[0].sizes == ((192, 256),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed = 1", "unknown key 'speed'"),
        ("batch = 0", "batch is 0: it must be at least 1"),
        ("learning_rate = -1.0", "learning_rate is -1.0: it must be at least 0"),
        ("clip = 0.0", "clip is 0.0: it must be above 0"),
        ("held_back = 1.0", "held_back is 1.0: it must be within 0..1 and below 1"),
        ("precision = 'float8'", "precision is 'float8': it must be one of"),
        ("steps = ", "is not a recipe"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, text, message):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_config(path)


def test_a_text_tower_comes_along_unread(tune, model):
    (model / TEXT_FILE).write_bytes(b"")
    save_weights(model / TEXT_FILE, {"x": torch.zeros(1)}, {}, {"text_sha256": DIGEST})
    _, out = tune(Mode.HEAD)
    assert (out / TEXT_FILE).read_bytes() == (model / TEXT_FILE).read_bytes()
