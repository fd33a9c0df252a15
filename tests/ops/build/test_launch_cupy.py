"""The CuPy launcher, on a strict stand-in for CuPy 14 that runs the emulated kernels."""

import contextlib
import ctypes
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import emulated
import numpy as np
import pytest
import torch
from cases import TOLERANCE, exact, fused, relative

from ape_cuda_ops.backends import cuda as structures
from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.cuda import CudaKernels
from ape_cuda_ops.build import launch_cupy, nvrtc
from ape_cuda_ops.build.launch_cupy import CupyLauncher
from ape_cuda_ops.build.launcher import Kernel
from ape_cuda_ops.errors import BackendError, CompileError

INDEX, STREAM = 3, 0x55
SHAPES = ((7, 5), (4, 3))
ELF = b"\x7fELF"


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class Device:
    current = None

    def __init__(self, index):
        assert type(index) is int
        self.index = index

    def __enter__(self):
        Device.current = self.index

    def __exit__(self, *_):
        Device.current = None


class Stream:
    @classmethod
    def from_external(cls, foreign):
        version, pointer = foreign.__cuda_stream__()
        assert (type(version), version, type(pointer)) == (int, 0, int)
        stream = cls()
        stream.ptr = pointer
        return stream


class Module:
    def load(self, cubin):
        assert type(cubin) is bytes
        if not cubin.startswith(ELF):
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")
        assert Device.current == INDEX
        self.source, self.name = cubin.removeprefix(ELF).decode().split("\0")

    def get_function(self, name):
        assert name == "symbol"
        return Function(self)


class Function:
    launches = ()

    def __init__(self, module):
        self.module = module

    def __call__(self, grid, block, args, shared_mem=0, stream=None):
        assert Device.current == INDEX
        assert [len(grid), len(block), len(args), shared_mem] == [3, 3, 1, 0]
        assert {type(given) for given in (grid, block, args)} == {tuple}
        assert {type(count) for count in (*grid, *block)} == {int}
        (structure,) = args
        assert (type(structure), structure.size) == (np.ndarray, 1)  # else CuPy refuses it
        name, source = self.module.name, self.module.source
        kind = getattr(structures, emulated.ARGUMENTS[name.split("<")[0]])
        assert len(structure.tobytes()) == ctypes.sizeof(kind)
        assert (type(stream), stream.ptr) == (Stream, STREAM)
        kernel = Kernel(source, name, grid, block[0])
        library = ctypes.CDLL(str(emulated.build(emulated.source_of(kernel))))
        library.start(structure.tobytes(), (ctypes.c_uint * 3)(*grid), block[0], 0)
        Function.launches += ((name.split("<")[0], block[1:]),)


@pytest.fixture
def cupy(monkeypatch):
    """CuPy and a GPU as far as the launcher sees them; what it compiles names its kernel."""
    module = ModuleType("cupy")
    module.__spec__ = ModuleSpec("cupy", None)
    module.__version__ = "14.2.0"
    module.cuda = SimpleNamespace(
        Device=Device,
        Module=Module,
        Stream=Stream,
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 4),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(Function, "launches", ())
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: INDEX)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=STREAM))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    compiling(monkeypatch, ELF)
    for cached in (launch_cupy._cupy, launch_cupy._function):
        cached.cache_clear()
    yield module
    for cached in (launch_cupy._cupy, launch_cupy._function):
        cached.cache_clear()


def compiling(monkeypatch, magic):
    def compile_kernel(source, name, architecture):
        assert architecture == 90
        return nvrtc.Compiled("symbol", magic + f"{source}\0{name}".encode(), "")

    monkeypatch.setattr(nvrtc, "compile_kernel", compile_kernel)


@pytest.mark.skipif(not emulated.has_compiler(), reason="no g++")
@pytest.mark.usefixtures("cupy")
def test_kernels_get_their_structures_grids_and_stream():
    kernels = CudaKernels(CupyLauncher())
    kernels.prepare()
    value, points, offsets, logits = fused(queries=9)
    expected = reference.msda_fused(*exact((value, points, offsets, logits)), SHAPES)
    for _ in range(2):  # loaded once, started twice
        out = kernels.forward(value, SHAPES, offsets, logits, points)
        assert relative(out, expected) < TOLERANCE[torch.float32]
    masks, how = torch.randn(3, 12, 20), ((33, 70), (8.3, 19.55), 0.0)
    assert torch.equal(kernels.mask_pack(masks, *how), reference.mask_pack(masks, *how))
    names = ["msda_forward", "msda_forward", "mask_pack"]
    assert Function.launches == tuple((name, (1, 1)) for name in names)
    assert launch_cupy._function.cache_info().misses == 2


def start():
    kernel = Kernel("post.cu", "nms_grouped", (1, 1, 1), 256)
    CupyLauncher().start(kernel, structures.NmsArguments(), torch.device("cuda"))


@pytest.mark.usefixtures("cupy")
def test_what_cupy_refuses_is_named(monkeypatch):
    compiling(monkeypatch, b"text")
    with pytest.raises(BackendError, match="CuPy: CUDA_ERROR_INVALID_IMAGE"):
        start()


@pytest.mark.usefixtures("cupy")
def test_a_kernel_that_does_not_compile_stays_a_compile_error(monkeypatch):
    def fail(*_):
        raise CompileError("no compiler")

    monkeypatch.setattr(nvrtc, "compile_kernel", fail)
    with pytest.raises(CompileError, match="no compiler"):
        start()


def test_a_cupy_that_is_too_old_is_named(cupy):
    cupy.__version__, cupy.cuda.Stream = "13.6.0", object
    with pytest.raises(BackendError, match=r"CuPy 13.6.0 is older than 14: pip install"):
        CupyLauncher().prepare()


def test_a_driver_older_than_cupy_is_named(cupy):
    def fail():
        raise CUDARuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDeviceCount = fail
    with pytest.raises(BackendError, match="CuPy finds no device: cudaErrorInsufficientDriver"):
        CupyLauncher().prepare()


@pytest.mark.usefixtures("cupy")
def test_a_missing_cupy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"CuPy cannot be imported .*'ape-stream\[cuda13\]'"):
        CupyLauncher().prepare()
