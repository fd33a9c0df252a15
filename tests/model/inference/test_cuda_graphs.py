"""A frame as CUDA graphs: what is captured when, and, on a GPU, that a replay is the frame."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ape_model.config import NANO, ApeConfig, VitConfig
from ape_model.errors import VariantError
from ape_model.inference.cuda_graphs import CACHE_SIZE, CapturedCall, CudaGraphRunner
from ape_model.inference.transfer import SLOTS, PinnedUploader
from ape_model.network.nano import build_nano
from ape_model.perceiver import ApePerceiver
from ape_stream.sources.video import VideoSource
from ape_stream.types import PromptSet

VIT = VitConfig(32, 2, 2, window=3, window_blocks=(0,), pretrain_grid=4)
TINY = ApeConfig(
    "tiny", VIT, canvas=128, hidden=64, heads=4, points=2, ffn=48, encoder_layers=2,
    decoder_layers=2, queries=12, neck=True, fusion_width=32, fusion_heads=4, ambiguous_heads=1,
    text_width=24, pre_nms_topk=8, norm_groups=8,
)  # fmt: skip
DEMO = Path(__file__).parents[3] / "examples/demo.mp4"
SIZES = ((128, 90), (70, 128))


@pytest.fixture
def model(shaken):
    return shaken(TINY)


def overwrite(old, new):
    """Write the tensors of one result into those of another, as a replay does."""
    if isinstance(old, torch.Tensor):
        old.copy_(new)
    elif isinstance(old, tuple):
        for mine, other in zip(old, new, strict=True):
            overwrite(mine, other)
    elif is_dataclass(old) and type(old).__name__ != "Geometry":
        for name in (field.name for field in fields(old)):
            overwrite(getattr(old, name), getattr(new, name))


class Emulated:
    """What CapturedCall promises, on a CPU: inputs and outputs in memory of their own."""

    made = 0

    def __init__(self, call, inputs):
        type(self).made += 1
        self.call, self.inputs = call, tuple(given.clone() for given in inputs)
        self.output = call(*self.inputs)

    def __call__(self, *inputs):
        overwrite(self.inputs, inputs)
        overwrite(self.output, self.call(*self.inputs))
        return self.output


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setattr(Emulated, "made", 0)
    return Emulated


def frame(network, prompts, seed=0, side=128, count=1, sizes=None):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=random)
    with torch.inference_mode():
        return network.head(network.encode_image(images, sizes), prompts)


def test_a_graph_is_refused_without_a_gpu(model):
    images = torch.zeros(1, 3, 128, 128)
    with pytest.raises(VariantError, match="needs a GPU, got cpu: call the network itself"):
        CudaGraphRunner(model).encode_image(images)
    with pytest.raises(VariantError, match="needs a GPU, got cpu"):
        CapturedCall(torch.neg, (images,))
    with pytest.raises(VariantError, match="needs a GPU, got cpu: use"):
        PinnedUploader(torch.device("cpu"))


def test_one_graph_serves_a_size_and_one_a_count_and_kind_of_prompts(model, emulated):
    network = CudaGraphRunner(model, emulated)
    made = []
    for embeddings, kind, sizes in [
        (3, "vocabulary", None),
        (3, "vocabulary", None),
        (3, "sentences", None),
        (5, "vocabulary", None),
        (3, "vocabulary", ((90, 128),)),
        (5, "vocabulary", None),
    ]:
        frame(network, getattr(model, kind)(torch.randn(embeddings, 24)), sizes=sizes)
        made.append(emulated.made)
    assert made == [2, 2, 3, 4, 6, 6]


def test_a_replay_is_the_frame_of_its_own_pixels_and_prompts(model, emulated):
    network = CudaGraphRunner(model, emulated)
    for seed in range(3):
        prompts = model.sentences(torch.randn(3, 24))
        given = {"seed": seed, "count": 2, "sizes": SIZES}
        replayed, eager = frame(network, prompts, **given), frame(model, prompts, **given)
        for name in ("memory", "logits", "boxes", "mask_feature"):
            assert torch.equal(getattr(replayed, name), getattr(eager, name))
        queries = torch.tensor([1, 5])
        with torch.inference_mode():
            assert torch.equal(
                network.region_masks(replayed, 1, queries), model.region_masks(eager, 1, queries)
            )
    assert emulated.made == 2


def test_a_later_pass_leaves_the_outputs_of_an_earlier_one(model, emulated):
    network = CudaGraphRunner(model, emulated)
    with torch.inference_mode():
        for _ in range(2):
            features = network.encode_image(torch.randn(1, 3, 128, 128))
            first, second = (model.vocabulary(torch.randn(1, 24)) for _ in range(2))
            outputs = network.head(features, first)
            before = outputs.logits.clone()
            network.head(features, second)
            assert torch.equal(outputs.logits, before)
    assert emulated.made == 3


def test_the_sizes_used_last_are_kept(model, emulated):
    network, prompts = CudaGraphRunner(model, emulated), model.vocabulary(torch.randn(1, 24))
    for width in range(100, 101 + CACHE_SIZE):  # one too many
        frame(network, prompts, sizes=((128, width),))
    before = emulated.made
    frame(network, prompts, sizes=((128, 100 + CACHE_SIZE),))
    assert emulated.made == before
    frame(network, prompts, sizes=((128, 100),))
    assert emulated.made == before + 2


def test_what_cannot_be_captured_runs_one_by_one_and_says_so_once(model):
    def fails(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    network, prompts = CudaGraphRunner(model, fails), model.vocabulary(torch.randn(2, 24))
    with pytest.warns(UserWarning, match="one by one: operation not permitted.*capturing$"):
        first = frame(network, prompts)
    assert torch.equal(first.logits, frame(model, prompts).logits)
    assert torch.equal(first.logits, frame(network, prompts).logits)


def test_a_perceiver_sees_the_same_through_graphs(home, emulated):  # noqa: ARG001
    with VideoSource(str(DEMO), name="demo") as source:
        frames = [frame for frame, _ in zip(source, range(3), strict=False)]
    perceiver = ApePerceiver(device="cpu")
    perceiver.prepare(PromptSet.of(["red apple", "dog face", "the dog left of the apple"]))
    eager = [perceiver.perceive([frame])[0] for frame in frames]
    perceiver._runner = CudaGraphRunner(perceiver.network, emulated)
    replayed = [perceiver.perceive([frame])[0] for frame in frames]
    for mine, plain in zip(replayed, eager, strict=True):
        assert len(plain) > 0
        np.testing.assert_array_equal(mine.boxes, plain.boxes)
        np.testing.assert_array_equal(mine.scores, plain.scores)
    assert emulated.made == 1 + len(perceiver._passes)


class OneDevice(TorchDispatchMode):
    """Nothing is copied from the host: the copy would wait, which breaks a capture."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        assert {tensor.device.type for tensor in found} <= {"meta"}, func
        return out


@pytest.mark.parametrize("kind", ["vocabulary", "sentences"])
@pytest.mark.parametrize("nano", [False, True])
def test_nothing_waits_between_pixels_and_logits(model, monkeypatch, nano, kind):
    """On tensors without data all that needs a value, or the size of a choice, is an error."""
    network = build_nano(NANO).eval() if nano else model
    width, network = network.config.text_width, network.to("meta")
    images, sizes = torch.empty(2, 3, 128, 128, device="meta"), ((128, 90), (70, 128))
    prompts = getattr(network, kind)(torch.empty(5, width, device="meta"))
    with torch.inference_mode():
        network.encode_image(images, sizes)  # makes and keeps what depends on sizes alone
        monkeypatch.delattr(torch, "tensor")  # of a list: a copy from the host, too
        with OneDevice():
            outputs = network.head(network.encode_image(images, sizes), prompts)
    assert outputs.logits.shape == (2, network.config.queries, 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("kind", ["vocabulary", "sentences"])
def test_a_captured_frame_equals_the_eager_one(model, kind):
    device = torch.device("cuda")
    network = CudaGraphRunner(model.to(device))
    with torch.inference_mode():
        for count in (3, 3, 5, 3):
            images = torch.randn(2, 3, 128, 128, device=device)
            prompts = getattr(model, kind)(torch.randn(count, 24, device=device))
            mine = network.head(network.encode_image(images, SIZES), prompts)
            eager = model(images, prompts, SIZES)
            assert torch.equal(mine.proposals.tokens, eager.proposals.tokens)
            torch.testing.assert_close(mine.logits, eager.logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(mine.mask_feature, eager.mask_feature, rtol=1e-4, atol=1e-4)
    assert not network._one_by_one


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_buffer_is_not_written_while_it_is_copied():
    ring, sides = PinnedUploader(torch.device("cuda")), [4096, 100, 4097] * SLOTS
    there = [ring(np.full((side, side, 3), turn, np.uint8)) for turn, side in enumerate(sides)]
    assert [len(image) for image in there] == sides
    assert [image.unique().tolist() for image in there] == [[turn] for turn in range(len(sides))]
