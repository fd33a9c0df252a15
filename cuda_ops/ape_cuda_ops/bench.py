"""`ape-stream bench ops` and `resize`: backends and their baselines, in one interleaved run."""

from __future__ import annotations

import json
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import typer
from PIL import Image

from ape_cuda_ops.backends import reference
from ape_cuda_ops.errors import BackendError
from ape_cuda_ops.registry import BACKENDS, load
from ape_cuda_ops.resize import resize_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "CASES",
    "LayerCase",
    "OpsTiming",
    "interleaved",
    "layer_inputs",
    "measure",
    "ops",
    "resize",
]


class LayerCase(NamedTuple):
    """The sizes of one deformable layer."""

    side: int
    """Side of the square image, pixels."""
    strides: tuple[int, ...]
    """Stride of each level, pixels."""
    heads: int = 8
    dim: int = 32
    """Width of a head."""
    queries: int | None = None
    """Number of queries, at random positions; None: one at each pixel of each level."""


LEVELS = (4, 8, 16, 32, 64)
CASES = {
    "small": LayerCase(320, (8, 16, 32)),
    "encoder640": LayerCase(640, LEVELS),
    "encoder1024": LayerCase(1024, LEVELS),
    "decoder900": LayerCase(1024, LEVELS, queries=900),
}
RESIZES = (
    ((240, 320), (192, 256)),
    ((720, 1280), (160, 284)),
    ((1080, 1920), (160, 284)),
    ((1080, 1920), (270, 480)),
    ((2160, 3840), (576, 1024)),
)
"""Heights and widths of frames, and at which the networks see them."""
CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class OpsTiming:
    """What was measured of one backend on one case."""

    case: str
    """Key of :data:`CASES`."""
    backend: str
    """Name of the backend; `reference` is grid_sample, the baseline."""
    cpu_s: float
    """Median CPU seconds of a call, all threads together."""
    wall_s: float
    """Median wall seconds of a call."""
    speedup: float
    """Time of the baseline divided by the time of this one, median over the rounds: CPU time, on a
    GPU wall time (the host waits for it)."""
    error: float
    """Relative difference from the baseline (Frobenius)."""
    least_bytes: int
    """Bytes that every implementation must move: each tensor once."""
    floor_fraction: float
    """Time of copying `least_bytes` divided by `wall_s`; 1 is the limit of the memory."""


def layer_inputs(name: str) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """value, reference, offsets and logits of a deformable layer, float32, and its shapes."""
    case = CASES[name]
    shapes = [(case.side // stride, case.side // stride) for stride in case.strides]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    random = torch.Generator().manual_seed(0)
    centres = []
    for height, width in shapes:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack(((x + 0.5) / width, (y + 0.5) / height), -1).flatten(0, 1))
    points = torch.cat(centres)  # (S, 2)
    if case.queries is not None:
        points = torch.rand((case.queries, 2), generator=random)
    Q, H = len(points), case.heads
    value = torch.randn((1, tokens, H, case.dim), generator=random)
    offsets = 2 * torch.randn((1, Q, H, levels, 4, 2), generator=random)
    logits = torch.randn((1, Q, H, levels * 4), generator=random)
    return [value, points[None, :, None].repeat(1, 1, levels, 1), offsets, logits], shapes


def interleaved(
    calls: dict[str, Callable[[], object]], repeats: int, device: torch.device = CPU
) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every call, in turns: other load slows all calls equally."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for call in calls.values():
        call()  # warm up: compiles, and maps new memory
    for _ in range(repeats):
        for name, call in calls.items():
            wait()
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            wait()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return times


def _usable(names: Sequence[str]) -> list[str]:
    """The backends that work here; the others are named in a warning."""
    found = []
    for name in names:
        try:
            load(name)
        except BackendError as error:
            warnings.warn(f"{name} is not measured: {error}", stacklevel=2)
        else:
            found.append(name)
    return found


def measure(
    case: str, repeats: int, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> list[OpsTiming]:
    """All backends of a device on one case, from locations and weights as grid_sample takes them.

    Args:
        case: Key of `CASES`.
        repeats: Number of rounds.
        device: Where to compute.
        dtype: Dtype of the values; locations and weights are float32.
    """
    tensors, shapes = layer_inputs(case)
    value, points, offsets, logits = (tensor.to(device) for tensor in tensors)
    value = value.to(dtype)
    locations = reference.sampling_locations(points, offsets, shapes)
    weights = reference.sampling_weights(logits, len(shapes), points)
    names = _usable([name for name, known in BACKENDS.items() if device.type in known.devices])
    calls: dict[str, Callable[[], Tensor]] = {
        "reference": lambda: reference.msda(value, shapes, locations, weights)
    }
    for name in names:
        calls[name] = partial(load(name).forward, value, shapes, locations, weights)
    out = calls["reference"]()
    size = sum(tensor.nbytes for tensor in (value, locations, weights, out))
    block = torch.empty(size // 8, device=device)  # float32: a copy reads and writes half each
    times = interleaved({**calls, "copy": block.clone}, repeats, device)
    timer = 0 if device.type == "cpu" else 1
    copy = statistics.median(wall for _, wall in times.pop("copy"))
    lines = []
    for name, pairs in times.items():
        ratios = [
            base[timer] / mine[timer] for base, mine in zip(times["reference"], pairs, strict=True)
        ]
        error = ((calls[name]().float() - out.float()).norm() / out.float().norm()).item()
        wall = statistics.median(wall for _, wall in pairs)
        cpu = statistics.median(cpu for cpu, _ in pairs)
        ratio = statistics.median(ratios)
        lines.append(OpsTiming(case, name, cpu, wall, ratio, error, size, copy / wall))
    return lines


def ops(
    *,
    case: str,
    dtype: str,
    device: str,
    repeats: int,
    threads: int,
    as_json: bool,
) -> None:
    """Deformable attention, forward: every backend compared with grid_sample."""
    if case not in {*CASES, "all"}:
        raise typer.BadParameter(f"there is no case {case!r}: choose {', '.join(CASES)} or all")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"there is no dtype {dtype!r}: choose {', '.join(DTYPES)}")
    if device not in {"cpu", "cuda"} or (device == "cuda" and not torch.cuda.is_available()):
        raise typer.BadParameter(f"there is no device {device!r}: torch sees none")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            chosen = CASES if case == "all" else (case,)
            where = (torch.device(device), DTYPES[dtype])
            for name in chosen:
                for line in measure(name, repeats, *where):
                    typer.echo(json.dumps(asdict(line)) if as_json else _text(line))
    finally:
        torch.set_num_threads(before)


def _text(line: OpsTiming) -> str:
    return (
        f"{line.case:11} {line.backend:14} {line.cpu_s * 1e3:9.1f} ms CPU "
        f"{line.wall_s * 1e3:9.1f} ms {line.speedup:6.1f}x  error {line.error:.1e}  "
        f"{line.least_bytes / 1e6:.0f} MB to move, {line.floor_fraction:.0%} of copy speed"
    )


def resize(*, repeats: int, as_json: bool) -> None:
    """Frames of usual sizes resized for the network, compared with Pillow."""
    for given, wanted in RESIZES:
        image = np.random.default_rng(0).integers(0, 256, (*given, 3), np.uint8)
        calls: dict[str, Callable[[], object]] = {
            "pillow": partial(_pillow, image, wanted),
            "mine": partial(resize_bytes, image, wanted),
        }
        times = interleaved(calls, repeats)
        ratio = statistics.median(
            base / mine for (base, _), (mine, _) in zip(*times.values(), strict=True)
        )
        pillow_s, cpu_s = (statistics.median(cpu for cpu, _ in pairs) for pairs in times.values())
        line = {"from": given, "to": wanted, "pillow_s": pillow_s, "cpu_s": cpu_s, "speedup": ratio}
        text = (
            f"{given[1]}x{given[0]} to {wanted[1]}x{wanted[0]}: {cpu_s * 1e3:.1f} ms CPU, Pillow"
            f" {pillow_s * 1e3:.1f} ms, {ratio:.1f}x"
        )
        typer.echo(json.dumps(line) if as_json else text)


def _pillow(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized)
