"""The check at the first use of a device, on stand-ins that fail in every way a GPU can."""

import os
import sys
import warnings
from types import SimpleNamespace

import emulated
import pytest
import torch
from cases import fused

import ape_cuda_ops
from ape_cuda_ops import device_check, doctor, registry
from ape_cuda_ops.backends.cuda import CudaKernels
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG, EmbeddingBagKernels
from ape_cuda_ops.build.launcher import LAUNCHERS, Choice
from ape_cuda_ops.errors import BackendError, CompileError, DeviceCheckError

CPU = torch.device("cpu")
SHAPES = ((7, 5), (4, 3))


@pytest.fixture(autouse=True)
def _own_records(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_STREAM_CACHE", str(tmp_path))


def stand_in(method, change):
    """Kernels that are right but for the result of one method."""

    class StandIn(EmbeddingBagKernels):
        pass

    def broken(self, *arguments):
        return change(getattr(EmbeddingBagKernels, method)(self, *arguments))

    setattr(StandIn, method, broken)
    return StandIn()


def lost(_):
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")


BROKEN = {
    "wrong values": ("forward", lambda out: out * 1.01, "attention in float32 differs"),
    "NaN": ("forward", lambda out: out * float("nan"), "differs from its reference by nan"),
    "wrong in bfloat16": (
        "forward",
        lambda out: out * 2 if out.dtype == torch.bfloat16 else out,
        "bfloat16 differs",
    ),
    "wrong gradient": (
        "backward",
        lambda grads: (grads[0], grads[1].flip(-1), grads[2]),
        "a gradient of deformable attention differs",
    ),
    "wrong box": ("nms_grouped", lambda keep: ~keep, "suppression differs"),
    "one wrong bit": ("mask_pack", lambda words: words ^ (words == words[0, 0, 0]), "packing"),
    "raises": ("mask_pack", lost, "illegal memory access was encountered; delete"),
}


@pytest.fixture
def chosen(fresh_registry):
    """Use kernels as the first choice of the CPU; returns the backend chosen and its warnings."""

    def choose(kernels):
        fresh_registry.setattr(device_check, "kernel_sources", list)
        fresh_registry.setitem(sys.modules, "stand_in", SimpleNamespace(KERNELS=kernels))
        first = registry.Backend("first", "stand_in:KERNELS", frozenset({"cpu"}), 0, checked=True)
        fresh_registry.setitem(registry.BACKENDS, "first", first)
        registry.load.cache_clear()
        registry._name.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            name = ape_cuda_ops.backend_in_use()
        return name, [str(warning.message) for warning in caught]

    return choose


def test_right_kernels_are_checked_once_and_used(chosen, monkeypatch):
    assert chosen(EMBEDDING_BAG) == ("first", [])
    (record,) = device_check.records(CPU)
    assert (record.check, record.state) == ("kernels", "passed")
    monkeypatch.setattr(device_check, "check_kernels", lost)
    assert chosen(EMBEDDING_BAG) == ("first", [])


@pytest.mark.parametrize("case", BROKEN)
def test_broken_kernels_are_named_and_the_next_backend_used(chosen, case):
    method, change, message = BROKEN[case]
    name, warned = chosen(stand_in(method, change))
    assert name != "first"
    (line,) = (line for line in warned if line.startswith("first"))
    assert "first kernels cannot be used: the kernels check failed on cpu" in line
    with pytest.raises(DeviceCheckError, match=message):
        device_check.check_once("kernels", CPU, lambda: None, [])
    value, *others = fused()
    assert torch.isfinite(ape_cuda_ops.msda_fused(value, *others, SHAPES)).all()


def test_a_failure_is_remembered_and_shown_by_the_doctor(chosen):
    chosen(stand_in("forward", lost))
    _, warned = chosen(EMBEDDING_BAG)
    assert any("failed on cpu before" in line and "delete" in line for line in warned)
    ((what, finding),) = doctor.checks(CPU)
    assert what == "kernels check"
    assert finding.startswith(
        "failed on cpu, driver none, launcher none: CUDA error: an illegal memory"
    )


def test_a_forced_backend_that_fails_is_an_error(chosen, monkeypatch):
    monkeypatch.setenv("APE_STREAM_KERNELS", "first")
    with pytest.raises(DeviceCheckError, match="attention in float32 differs"):
        chosen(stand_in("forward", lambda out: out + 1))


def test_the_environment_skips_the_check(chosen, monkeypatch):
    monkeypatch.setenv("APE_STREAM_SKIP_DEVICE_CHECK", "1")
    assert chosen(stand_in("forward", lost)) == ("first", [])


def interrupt():
    (record,) = device_check.records(CPU)
    assert (record.state, record.detail) == ("running", str(os.getpid()))
    raise KeyboardInterrupt


def test_an_interrupted_check_is_run_again():
    with pytest.raises(KeyboardInterrupt):
        device_check.check_once("upload", CPU, interrupt, [])
    device_check.check_once("upload", CPU, lambda: None, [])
    assert [record.state for record in device_check.records(CPU)] == ["passed"]


@pytest.mark.parametrize("process", [999_999_999, os.getpid()], ids=["gone", "our own again"])
def test_a_check_during_which_its_process_died_counts_as_failed(process):
    device_check.check_once("upload", CPU, lambda: None, [])
    (file,) = device_check.store.directory().glob("*.json")
    died = file.read_text().replace("passed", "running").replace('""', f'"{process}"')
    file.write_text(died)
    with pytest.raises(DeviceCheckError, match="the process died during it"):
        device_check.check_once("upload", CPU, lambda: None, [])


def test_a_check_that_another_process_runs_is_run_here_too():
    runs = []
    device_check.check_once("upload", CPU, lambda: None, [])
    (file,) = device_check.store.directory().glob("*.json")
    file.write_text(file.read_text().replace("passed", "running").replace('""', '"1"'))
    device_check.check_once("upload", CPU, lambda: runs.append(1), [])
    assert runs


@pytest.mark.parametrize("error", [CompileError("no compiler"), torch.OutOfMemoryError("full")])
def test_what_says_nothing_about_the_device_is_not_remembered(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        device_check.check_once("kernels", CPU, fail, [])
    assert device_check.records(CPU) == []


def test_another_launcher_is_checked_again(monkeypatch):
    runs, device = [], torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(device_check, "driver_version", lambda: "13.0")
    for name in ("driver", "cupy", "driver"):
        choice = Choice(LAUNCHERS[name], "test")
        monkeypatch.setattr(device_check, "chosen", lambda choice=choice: choice)
        device_check.check_once("kernels", device, lambda: runs.append(1), [])
        ((_, finding),) = doctor.checks(device)
        assert finding == f"passed on GPU (sm_90), driver 13.0, launcher {name}"
    assert len(runs) == 2


def test_changed_sources_are_checked_again(tmp_path):
    source, runs = tmp_path / "any.cu", []
    for text in ("one", "one", "two"):
        source.write_text(text)
        device_check.check_once("kernels", CPU, lambda: runs.append(1), [source])
    assert len(runs) == 2


def test_a_cache_that_cannot_be_written_checks_again(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APE_STREAM_CACHE", str(tmp_path / "file"))
    runs = []
    for _ in range(2):
        device_check.check_once("kernels", CPU, lambda: runs.append(1), [])
    assert len(runs) == 2


def test_the_sources_are_those_of_the_kernels():
    names = {path.name for path in device_check.kernel_sources()}
    assert {"msda.cu", "post.cu", "device.cuh", "cuda.py", "nvrtc.py"} <= names
    assert {"launcher.py", "launch_cupy.py", "launch_driver.py"} <= names


@pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")
def test_the_emulated_kernels_pass():
    device_check.check_kernels(emulated.kernels(), CPU)


@pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")
def test_a_fault_in_the_cuda_source_is_found():
    fault = ("__fmul_rn(high_weight, high)", "__fmul_rn(high_weight, low)")
    with pytest.raises(BackendError, match="mask packing differs"):
        device_check._check_masks(emulated.kernels(edit=fault), CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", LAUNCHERS)
def test_this_gpu_passes_by_each_launcher(name):
    if name == "cupy":
        pytest.importorskip("cupy")
    kernels = CudaKernels(LAUNCHERS[name])
    kernels.prepare()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        device_check.check_kernels(kernels, torch.device("cuda", torch.cuda.current_device()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_this_gpu_passes(fresh_registry):
    fresh_registry.delenv("APE_STREAM_SKIP_DEVICE_CHECK", raising=False)
    assert ape_cuda_ops.backend_in_use("cuda") == "cuda"
    assert [r.state for r in device_check.records(torch.device("cuda"))] == ["passed"]
