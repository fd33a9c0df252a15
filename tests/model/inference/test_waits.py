"""How often a frame makes the host wait, counted on a CPU's tensors that pass for a GPU's."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ape_model import perceiver as perceiving
from ape_model.inference import detect, selection
from ape_model.inference.preprocess import make_batch
from ape_model.perceiver import ApePerceiver
from ape_stream.sources.video import VideoSource
from ape_stream.types import PromptSet

DEMO = Path(__file__).parents[3] / "examples/demo.mp4"
PROMPTS = PromptSet.of(["red apple", "dog face", "sky", "the largest apple"])
ASK = {
    "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero",
    "unique_consecutive", "unique_dim", "_unique2",
}  # fmt: skip
"""Operators that need a value, or make as many rows as values say."""
LEAVE = {torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item}


def tensors(*nested):
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def is_there(tensor):
    return getattr(tensor, "there", False)


class NoQuestions(TorchDispatchMode):
    """What is made of a tensor that is there is there, too, and nothing asks for its values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = tensors(args, kwargs or {})
        there = any(is_there(tensor) for tensor in given)
        name = func._schema.name.removeprefix("aten::")
        if there:
            chosen = "index" in name and any(tensor.dtype == torch.bool for tensor in given[1:])
            assert name not in ASK, f"{name} waits"
            assert not chosen, f"{name} waits: it counts what a mask chooses"
        out = func(*args, **(kwargs or {}))
        for tensor in tensors(out) if there else ():
            tensor.there = True
        return out


class NoLeaving(TorchFunctionMode):
    """No tensor that is there goes to the host by itself."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in LEAVE or not is_there(args[0]), f"{func} waits"
        return func(*args, **(kwargs or {}))


class Bus:
    """In place of `ape_model.inference.transfer`: what goes over, and how often the host waits."""

    def __init__(self):
        self.waits, self.brought, self.images = 0, [], []

    def to_host(self, given):
        self.waits += 1
        self.brought.append([tensor.dtype for tensor in given])
        copies = [tensor.clone() for tensor in given]
        for copy in copies:
            copy.there = False
        return copies

    def to_device(self, tensor, _device):
        there = tensor.clone()
        there.there = True
        return there

    def upload(self, image):
        self.images.append(image.dtype)
        return self.to_device(torch.from_numpy(image.copy()), None)

    def make_batch(self, *given):
        """The batch is filled frame by frame, which the mode does not follow."""
        batch, sizes = make_batch(*given)
        return self.to_device(batch, None), sizes


@contextmanager
def pretended_gpu(model, monkeypatch):
    """A perceiver that works as on a GPU."""
    bus = Bus()
    with monkeypatch.context() as patch:
        for module in (selection, perceiving):
            patch.setattr(module, "to_host", bus.to_host)
        patch.setattr(detect, "to_device", bus.to_device)
        patch.setattr(perceiving, "make_batch", bus.make_batch)
        patch.setattr(model, "_upload", bus.upload)
        patch.setattr(model, "_capacity", 4096)
        patch.setattr(model, "_packs_masks", True)
        with NoQuestions(), NoLeaving():
            yield bus


@pytest.fixture
def frames():
    with VideoSource(str(DEMO), name="demo") as source:
        return [frame for frame, _ in zip(source, range(30), strict=False)][::29]


@pytest.fixture
def model(home):  # noqa: ARG001
    made = ApePerceiver(device="cpu", threshold=0.1, canvas=240)  # of which frames fill a part
    made.prepare(PROMPTS)
    return made


def test_a_frame_waits_twice_and_brings_bits(model, frames, monkeypatch):
    assert len(model._passes) == 2
    plain = model.perceive(frames)
    with pretended_gpu(model, monkeypatch) as bus:
        found = model.perceive(frames)
    assert bus.waits == 2
    assert set(bus.brought[1]) == {torch.int32}
    assert bus.images == [np.uint8] * len(frames)
    assert sum(len(wanted) for wanted in plain) > 2
    for mine, wanted in zip(found, plain, strict=True):
        np.testing.assert_array_equal(mine.scores, wanted.scores)
        np.testing.assert_array_equal(mine.prompt_ids, wanted.prompt_ids)
        np.testing.assert_array_equal(mine.boxes, wanted.boxes)
        for one, other in zip(mine.masks, wanted.masks, strict=True):
            np.testing.assert_array_equal(one.bitmap, other.bitmap)


def test_a_wait_would_be_seen(model, frames, monkeypatch):
    with pretended_gpu(model, monkeypatch):
        monkeypatch.setattr(model, "_capacity", None)
        with pytest.raises(AssertionError, match="nonzero waits"):
            model.perceive(frames)
