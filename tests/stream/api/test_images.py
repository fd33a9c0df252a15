import threading

import numpy as np
import pytest
import torch
from PIL import Image

from ape_stream.api import images
from ape_stream.api import open as open_run
from ape_stream.api.images import BATCH, KEPT, LoadedModel, find, load
from ape_stream.errors import ConfigError, PluginError, PromptError, SourceError, UsageError
from ape_stream.sources.pixels import to_bgr
from ape_stream.testing import OraclePerceiver
from ape_stream.types import Maps


def grey(value=90, size=(32, 48)):
    return np.full((*size, 3), value, np.uint8)


@pytest.fixture
def oracles(monkeypatch):
    """Every model that is loaded, by its options, in order."""
    made = []

    def make_model(name, options):
        made.append(({"model": name, **options}, OraclePerceiver()))
        return made[-1][1]

    monkeypatch.setattr(images, "make_model", make_model)
    monkeypatch.setattr(images, "_kept", {})
    return made


def test_one_image_gives_detections_and_a_list_gives_a_list():
    model = LoadedModel(OraclePerceiver())
    one = model.find(grey(), "red apple, dog face")
    assert one.data["class_name"].tolist() == ["red apple", "dog face"]
    assert one.mask.shape == (2, 32, 48)
    assert one.tracker_id is None
    many = model.find([grey(size=(32, 48)), grey(size=(20, 64))], ["dog face"])
    assert [found.mask.shape for found in many] == [(1, 32, 48), (1, 20, 64)]


def test_prompts_are_prepared_once_and_images_go_in_batches():
    oracle = OraclePerceiver()
    model = LoadedModel(oracle)
    for _ in range(2):
        model.find([grey()] * (BATCH + 1), "cat")
    assert oracle.encoded == ["cat"]
    assert [len(batch) for batch in oracle.batches] == [BATCH, 1, BATCH, 1]


def test_a_refused_prompt_is_refused_again_and_others_still_work():
    class Picky(OraclePerceiver):
        def prepare(self, prompts):
            if "bad" in prompts.texts:
                raise PromptError("bad")
            super().prepare(prompts)

    model = LoadedModel(Picky())
    for _ in range(2):
        with pytest.raises(PromptError):
            model.find(grey(), "bad")
    assert len(model.find(grey(), "good")) == 1


def test_the_last_models_stay_loaded(oracles):
    for _ in range(3):
        find(grey(), "cat")
    find(grey(), "cat", threshold=0.2)
    assert [options for options, _ in oracles] == [
        {"model": "nano"},
        {"model": "nano", "threshold": 0.2},
    ]
    for name in "ABC"[:KEPT]:
        find(grey(), "cat", model=name)
    find(grey(), "cat")  # it was let go
    assert [options["model"] for options, _ in oracles] == ["nano", "nano", "A", "B", "nano"]


def test_threads_may_share_a_model():
    model = LoadedModel(OraclePerceiver(delay_s=0.01))
    wrong = []

    def ask(word):
        found = [model.find(grey(), word).data["class_name"].tolist() for _ in range(5)]
        wrong.extend(names for names in found if names != [word])

    threads = [threading.Thread(target=ask, args=(word,)) for word in ("cat", "dog")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_ready_perceivers_take_no_options():
    assert len(load(OraclePerceiver()).find(grey(), "cat")) == 1
    with pytest.raises(PluginError, match="threshold"):
        load(OraclePerceiver(), threshold=0.3)


def test_arrays_pil_images_and_files_have_the_same_pixels(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 2] = 200  # blue-green-red
    pil = Image.fromarray(red[..., ::-1].copy())
    pil.save(tmp_path / "red.png")
    for given in (red, pil, tmp_path / "red.png", str(tmp_path / "red.png"), pil.convert("RGBA")):
        assert np.array_equal(to_bgr(given), red)
    assert np.array_equal(to_bgr(torch.from_numpy(red)), red)
    assert np.array_equal(to_bgr(red[..., 0]), np.zeros((4, 6, 3)))
    assert np.array_equal(to_bgr(np.dstack([red, red[..., :1]])), red)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((4, 6, 3), np.float32),
        np.zeros((3, 4, 6), np.uint8),
        np.zeros((0, 6, 3), np.uint8),
        np.zeros(5, np.uint8),
        b"bytes",
        7,
    ],
)
def test_what_is_no_image_is_refused_in_words(given):
    with pytest.raises(UsageError, match="image"):
        to_bgr(given)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"x\.png"):
        to_bgr(path)
    with pytest.raises(SourceError, match="missing"):
        to_bgr(tmp_path / "missing.png")


@pytest.mark.parametrize("given", [None, 7, b"bytes", [None], object()])
def test_finding_in_what_is_no_image_is_refused_in_words(given):
    with pytest.raises(UsageError, match="an image is a NumPy array, a PIL image or a path, got"):
        load(OraclePerceiver()).find(given, "cup")


def test_images_may_come_from_any_iterable():
    images = (grey() for _ in range(3))
    assert len(load(OraclePerceiver()).find(images, "cup")) == 3


@pytest.mark.parametrize("model", [object(), OraclePerceiver(), None])
def test_a_ready_model_is_sent_to_load(model):
    with pytest.raises(ConfigError, match="`load`"):
        find(grey(), "cup", model=model)


def test_a_loaded_model_serves_runs_and_single_images_at_once():
    oracle = OraclePerceiver()
    model = load(oracle)
    assert load(model) is model
    found = []
    with (
        open_run([grey()] * 6, "dog", model=model) as dogs,
        open_run([grey()] * 6, "cat, bird", model=model) as others,
    ):
        for dog, other in zip(dogs, others, strict=True):
            single = find(grey(), "fish", model=model)
            names = [dog.detections, other.detections, single]
            found.append([each.data["class_name"].tolist() for each in names])
    assert found == [[["dog"], ["cat", "bird"], ["fish"]]] * 6
    with pytest.raises(PluginError, match="no options, got device"):
        find(grey(), "cup", model=model, device="cpu")


class Painter(OraclePerceiver):
    """Also makes maps, here none."""

    def perceive_with_maps(self, frames, wanted):
        del wanted
        return [(found, Maps()) for found in self.perceive(frames)]


def test_a_run_asks_a_loaded_model_for_maps_only_where_it_makes_them():
    run = open_run(grey(), "cup", model=load(Painter()), maps=["semantic"])
    assert len(list(run)) == 1
    with pytest.raises(UsageError, match="the model makes no semantic maps"):
        open_run(grey(), "cup", model=load(OraclePerceiver()), maps=["semantic"])
