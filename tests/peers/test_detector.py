"""Any detector with the calls of torchvision."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ape_peers.detector import DetectorPerceiver
from ape_stream.errors import ConfigError, ModelError, PromptError
from ape_stream.plugins import make_model
from ape_stream.types import Frame, PromptSet

NAMES = ["__background__", "Cat", "traffic  light", "dog"]
FOUND = {
    "boxes": torch.tensor([[1.0, 2, 5, 6], [0, 0, 4, 4], [2, 2, 9, 9]]),
    "labels": torch.tensor([2, 1, 3]),
    "scores": torch.tensor([0.9, 0.7, 0.95]),
}


class Network:
    """Remembers what it was given."""

    def __init__(self, **more):
        self.more, self.given = more, None

    def __call__(self, images):
        self.given = images
        return [FOUND | self.more]


def red_frame():
    image = np.zeros((12, 10, 3), np.uint8)
    image[..., 2] = 255
    return Frame(image, 0, 0.0)


def test_classes_are_prompts_and_images_are_as_torchvision_takes_them():
    network = Network()
    perceiver = DetectorPerceiver(network, NAMES, device="cpu")
    perceiver.prepare(PromptSet.of(["traffic light", "CAT"]))
    [found] = perceiver.perceive([red_frame()])
    assert found.prompt_ids.tolist() == [0, 1]
    assert found.boxes.tolist() == FOUND["boxes"][:2].tolist()
    assert found.masks is None
    [image] = network.given
    assert image.shape == (3, 12, 10)
    assert image[:, 0, 0].tolist() == [1, 0, 0]


def test_masks_are_cut_at_one_half():
    pixels = torch.zeros(3, 1, 12, 10)
    pixels[0, 0, 3:5, 1:4] = 0.6
    pixels[0, 0, 0, 0] = 0.4
    perceiver = DetectorPerceiver(Network(masks=pixels), NAMES, device="cpu")
    perceiver.prepare(PromptSet.of(["traffic light"]))
    [mask] = perceiver.perceive([red_frame()])[0].masks
    assert (mask.x, mask.y, *mask.bitmap.shape) == (1, 3, 2, 3)


def test_what_is_no_class_is_refused():
    perceiver = DetectorPerceiver(Network(), NAMES, device="cpu")
    with pytest.raises(PromptError, match="'zebra' is none of the 4 classes"):
        perceiver.prepare(PromptSet.of(["zebra"]))
    perceiver.prepare(PromptSet.of(["cat"]))
    FOUND_HIGH = Network(labels=torch.tensor([2, 1, 9]))
    perceiver = DetectorPerceiver(FOUND_HIGH, NAMES, device="cpu")
    perceiver.prepare(PromptSet.of(["cat"]))
    with pytest.raises(ModelError, match="label 9, of 4 names"):
        perceiver.perceive([red_frame()])


def test_a_function_of_a_module_makes_it(monkeypatch):
    made = SimpleNamespace(make=lambda: (Network(), NAMES), wrong=Network)
    monkeypatch.setitem(sys.modules, "my_models", made)
    perceiver = make_model("detector:my_models:make", {"threshold": 0.8, "device": "cpu"})
    perceiver.prepare(PromptSet.of(["traffic light", "cat"]))
    assert perceiver.perceive([red_frame()])[0].prompt_ids.tolist() == [0]
    with pytest.raises(ModelError, match="must return the detector and its class names"):
        make_model("detector:my_models:wrong", {})
    with pytest.raises(ModelError, match="no function my_models:absent"):
        make_model("detector:my_models:absent", {})
    with pytest.raises(ConfigError, match=r"my_package\.my_module:make"):
        make_model("detector:my_models", {})
