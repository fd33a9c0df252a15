"""Compares what a GPU computes with its reference, at the first use of that GPU.

    check_once("kernels", device, run, sources)    # `run` raises DeviceCheckError or RuntimeError

The result is kept with the compiled kernels, in one file per check, device, driver, launcher and
sources: a check that passed is not run again, and one that failed, or during which the process
died, is not tried again. `APE_STREAM_SKIP_DEVICE_CHECK=1` skips all checks.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ape_cuda_ops.backends import reference
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG
from ape_cuda_ops.build.launch_driver import driver_version
from ape_cuda_ops.build.launcher import chosen
from ape_cuda_ops.errors import BackendError, CompileError, DeviceCheckError
from ape_stream.native import cache as store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ape_cuda_ops.backends.base import Kernels

__all__ = ["Record", "check_kernels", "check_once", "compare", "kernel_sources", "records"]

SKIP = "APE_STREAM_SKIP_DEVICE_CHECK"
"""The environment variable that skips all checks."""
PASSED, FAILED, RUNNING = "passed", "failed", "running"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Relative error (Frobenius) that rounding can explain; wrong code gives 0.1 and more."""
SHAPES = ((9, 7), (4, 3))


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one check on one device."""

    check: str
    """What was checked: `kernels`, `CUDA graph`, `upload`."""
    device: str
    """Name of the GPU."""
    driver: str
    """CUDA version of its driver."""
    launcher: str
    """What starts kernels there: `cupy`, `driver` or `none`."""
    state: str
    """`passed`, `failed` or `running`."""
    detail: str = ""
    """Why it failed; the process id while it runs."""


def check_once(
    check: str, device: torch.device, run: Callable[[], None], sources: Sequence[Path]
) -> None:
    """Run a check, unless its result is known for this device, driver, launcher and sources.

    Does nothing inside a CUDA graph capture, where nothing can be compared.

    Args:
        check: Name of the check, for messages.
        device: The device to check.
        run: Compares with a reference; raises DeviceCheckError or RuntimeError.
        sources: Files whose change makes an old result invalid.

    Raises:
        DeviceCheckError: the check failed, now or before.
    """
    if os.environ.get(SKIP) or _is_capturing(device):
        return
    identity = _identity(device)
    new = Record(check, *identity, RUNNING, str(os.getpid()))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    file = store.file_for("device-check", ".json", check, *identity, digest)
    old = _read(file)  # by this process or an earlier one
    if old is not None and old.state == PASSED:
        return
    # "Running" without its process is a crash: the check itself may kill the process again.
    if old is not None and not _is_alive(old):
        why = old.detail if old.state == FAILED else "the process died during it"
        raise DeviceCheckError(
            f"the {check} check failed on {old.device} before: {why}; delete {file} to try again"
        )
    _write(file, new)  # before the run, so that a crash leaves a trace
    try:
        run()
    except (BackendError, RuntimeError) as error:
        if isinstance(error, CompileError | torch.OutOfMemoryError):  # not a fault of the device
            file.unlink(missing_ok=True)
            raise
        why = f"{str(error).partition(chr(10))[0]}{_context_loss(device)}"
        _write(file, Record(check, *identity, FAILED, why))
        raise DeviceCheckError(f"the {check} check failed on {new.device}: {why}") from error
    except BaseException:  # Ctrl-C: the record must not look like a crash
        file.unlink(missing_ok=True)
        raise
    _write(file, Record(check, *identity, PASSED))


def records(device: torch.device) -> list[Record]:
    """All results that are kept for this device, driver and launcher."""
    found = map(_read, sorted(store.directory().glob("device-check-*.json")))
    identity = _identity(device)
    return [
        record
        for record in found
        if record and (record.device, record.driver, record.launcher) == identity
    ]


def compare(what: str, got: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
    """Raise DeviceCheckError when tensors differ by more than rounding; 0 means bit for bit."""
    got, expected = got.double().cpu(), expected.double().cpu()
    # 1e-12: an expected zero tensor must not divide by zero.
    error = ((got - expected).norm() / expected.norm().clamp(min=1e-12)).item()
    if not error <= tolerance:  # NaN fails too
        raise DeviceCheckError(f"{what} differs from its reference by {error:.1e}")


def kernel_sources() -> list[Path]:
    """All files that decide what the kernels compute."""
    package = Path(__file__).parent
    return sorted((*package.glob("csrc/*"), *package.glob("b*/*.py")))


def check_kernels(kernels: Kernels, device: torch.device) -> None:
    """Compare every kernel with its reference form on small inputs.

    With two levels and two points, so compiling the kernels takes about a second.

    Raises:
        DeviceCheckError: a result differs.
        BackendError: a kernel cannot be compiled or started.
    """
    for dtype, axes in ((torch.float32, 2), (torch.float16, 4), (torch.bfloat16, 2)):
        _check_forward(kernels, device, dtype, axes)
    _check_backward(kernels, device)
    _check_nms(kernels, device)
    _check_masks(kernels, device)


def _inputs(dtype: torch.dtype, axes: int) -> list[Tensor]:
    """value, offsets, logits and reference; the queries are the pixels of all levels."""
    random = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in SHAPES)
    value = torch.randn((1, tokens, 2, 16), generator=random)
    offsets = torch.randn((1, tokens, 2, len(SHAPES), 2, 2), generator=random)
    logits = torch.randn((1, tokens, 2, len(SHAPES) * 2), generator=random)
    points = torch.rand((1, tokens, len(SHAPES), axes), generator=random)
    return [value.to(dtype), offsets.to(dtype), logits.to(dtype), points]


def _check_forward(kernels: Kernels, device: torch.device, dtype: torch.dtype, axes: int) -> None:
    inputs = _inputs(dtype, axes)
    value, *others = (tensor.to(device) for tensor in inputs)
    got = kernels.forward(value, SHAPES, *others)
    value, offsets, logits, points = (tensor.double() for tensor in inputs)
    expected = reference.msda_fused(value, points, offsets, logits, SHAPES)
    name = str(dtype).removeprefix("torch.")
    compare(f"deformable attention in {name}", got, expected, TOLERANCE[dtype])


def _check_backward(kernels: Kernels, device: torch.device) -> None:
    inputs = _inputs(torch.float32, 2)
    grad = torch.randn((1, inputs[0].shape[1], 32), generator=torch.Generator().manual_seed(1))
    value, *others = (tensor.to(device) for tensor in inputs)
    got = kernels.backward(grad.to(device), value, SHAPES, *others)
    value, *others = (tensor.double() for tensor in inputs)
    expected = EMBEDDING_BAG.backward(grad.double(), value, SHAPES, *others)
    for mine, theirs in zip(got, expected, strict=True):
        compare("a gradient of deformable attention", mine, theirs, TOLERANCE[torch.float32])


def _check_nms(kernels: Kernels, device: torch.device) -> None:
    boxes = torch.rand((100, 4), generator=torch.Generator().manual_seed(0))
    boxes[:, 2:] = boxes[:, :2] + 0.3 * boxes[:, 2:]
    starts = torch.tensor([2, 40, 40, 98])  # padding at both ends, one group empty
    got = kernels.nms_grouped(boxes.to(device), starts.to(device), 0.4)
    compare("non-maximum suppression", got, reference.nms_grouped(boxes, starts, 0.4))


def _check_masks(kernels: Kernels, device: torch.device) -> None:
    logits = torch.randn((3, 12, 20), generator=torch.Generator().manual_seed(0))
    how = ((33, 70), (8.3, 19.55), 0.0)  # a width that ends within a word, a fractional part
    compare(
        "mask packing",
        kernels.mask_pack(logits.to(device), *how),
        reference.mask_pack(logits, *how),
    )


def _identity(device: torch.device) -> tuple[str, str, str]:
    """Name of the device, version of its driver, and the launcher of kernels."""
    if device.type != "cuda":
        return device.type, "none", "none"
    major, minor = torch.cuda.get_device_capability(device)
    try:
        driver = driver_version()
    except BackendError:  # graphs and uploads work without the bindings
        driver = f"of torch {torch.__version__}"
    try:
        launcher = chosen().launcher.name
    except BackendError:
        launcher = "none"
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})", driver, launcher


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _context_loss(device: torch.device) -> str:
    """An illegal access makes every later CUDA call of the process fail: say so."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return " (the GPU is lost to this process: start it again, without these kernels)"
    return ""


def _is_alive(record: Record) -> bool:
    """Whether another process runs the check now; our own id is that of an earlier process."""
    if record.state != RUNNING or record.detail == str(os.getpid()):
        return False
    try:
        os.kill(int(record.detail), 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _read(file: Path) -> Record | None:
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # no such file, or not ours: check again


def _write(file: Path, record: Record) -> None:
    with suppress(OSError):  # a cache that cannot be written: every process checks again
        store.keep(file, json.dumps(asdict(record)).encode())
