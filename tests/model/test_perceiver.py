"""What the perceiver does with regions after the network."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ape_model import perceiver as perceiving
from ape_model.perceiver import ApePerceiver
from ape_stream import masks
from ape_stream.errors import ModelError, UsageError
from ape_stream.sources.video import VideoSource
from ape_stream.stats import DeviceMemory
from ape_stream.types import Frame, PromptSet

DEMO = Path(__file__).parents[2] / "examples/demo.mp4"


def test_sixteen_bits_find_the_same_things(home):  # noqa: ARG001
    with VideoSource(str(DEMO), name="demo") as source:
        frame = next(iter(source))
    prompts = PromptSet.of(["red apple", "dog face"])
    several = []
    for dtype in ("float32", "bfloat16"):
        perceiver = ApePerceiver(dtype=dtype, device="cpu", threshold=0.6)
        perceiver.prepare(prompts)
        several.append(perceiver.perceive([frame])[0])
    exact, rounded = several
    assert len(exact) > 0
    assert sorted(exact.prompt_ids) == sorted(rounded.prompt_ids)
    overlap = masks.iou_matrix(list(exact.masks), list(rounded.masks))
    assert (overlap.max(1) > 0.9).all()


def test_an_arithmetic_that_nobody_has_is_refused():
    with pytest.raises(ModelError, match="no dtype 'int8': choose one of float32"):
        ApePerceiver(dtype="int8")


def test_kernels_are_compiled_before_a_stream_is_opened(monkeypatch, home):  # noqa: ARG001
    chosen = []
    monkeypatch.setattr(perceiving, "backend_in_use", chosen.append)
    ApePerceiver(device="cpu")
    assert chosen == [torch.device("cpu")]


@pytest.mark.parametrize(("threads_set", "threads"), [(None, 3), ("4", 4)])
def test_nano_leaves_a_core_unless_the_environment_sets_threads(monkeypatch, threads_set, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads_set is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads_set)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        perceiver = ApePerceiver(device="cpu")
        for _ in range(2):
            perceiver.prepare(PromptSet.of("red apple"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_on_a_cpu_no_device_memory_is_reported(home):  # noqa: ARG001
    assert ApePerceiver(device="cpu").device_memory() is None


def test_a_gpus_memory_is_what_the_allocator_says(home, monkeypatch):  # noqa: ARG001
    perceiver = ApePerceiver(device="cpu")
    perceiver.device = torch.device("cuda:1")
    total = SimpleNamespace(total_memory=9)
    for name, value in (("memory_allocated", 3), ("memory_reserved", 4)):
        monkeypatch.setattr(torch.cuda, name, {torch.device("cuda:1"): value}.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: total)
    assert perceiver.device_memory() == DeviceMemory("cuda:1", 3, 4, 9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpus_memory_is_reported_while_frames_go_through(home):  # noqa: ARG001
    perceiver = ApePerceiver(device="cuda:0")
    memory = perceiver.device_memory()
    weights = sum(w.numel() * w.element_size() for w in perceiver.network.parameters())
    assert weights <= memory.allocated <= memory.reserved <= memory.total
    assert memory.device == "cuda:0"
    perceiver.prepare(PromptSet.of("dog"))
    frame = Frame(np.zeros((720, 1280, 3), np.uint8), 0, 0.0)
    asking = threading.Event()

    def ask():
        while not asking.is_set():
            perceiver.device_memory()

    asker = threading.Thread(target=ask)
    asker.start()  # a graph's capture must not be broken by it
    try:
        for _ in range(4):
            perceiver.perceive([frame])
    finally:
        asking.set()
        asker.join()
    assert perceiver.device_memory().reserved > memory.reserved


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 2.0}, "threshold is 2.0, not within 0..1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"canvas": 3}, "canvas is 3 pixels: give at least 32"),
        ({"per_prompt": 0}, "per_prompt is 0: give at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused_before_a_model_is_read(options, says):
    with pytest.raises(UsageError, match=says):
        ApePerceiver(model="missing", **options)
