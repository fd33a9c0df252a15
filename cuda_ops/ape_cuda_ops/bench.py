"""``ape-stream bench ops``: every CPU backend against grid_sample, in one interleaved run."""

from __future__ import annotations

import json
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from ape_cuda_ops import reference
from ape_cuda_ops.errors import BackendError
from ape_cuda_ops.registry import BACKENDS, load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["CASES", "Line", "encoder_case", "interleaved", "measure", "ops"]

CASES = {"small": (320, (8, 16, 32), 8, 32), "encoder640": (640, (4, 8, 16, 32, 64), 8, 32)}
"""Image side, strides, heads and head dimension; every pixel of every level is a query."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one backend on one case."""

    case: str
    """Key of :data:`CASES`."""
    backend: str
    """``reference`` is grid_sample, the baseline."""
    cpu_s: float
    """Median CPU seconds of a call, all threads together."""
    wall_s: float
    """Median wall seconds of a call."""
    speedup: float
    """Baseline's CPU time over this one's: the median over the interleaved rounds."""
    error: float
    """Relative difference from the baseline (Frobenius)."""
    least_bytes: int
    """Bytes that any implementation must move: each tensor once."""
    floor_fraction: float
    """Time of copying that many bytes here over ``wall_s``; 1 would be bound by memory."""


def encoder_case(name: str) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """value, reference, offsets and logits of a deformable encoder layer, and its shapes."""
    side, strides, heads, dim = CASES[name]
    shapes = [(side // stride, side // stride) for stride in strides]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    random = torch.Generator().manual_seed(0)
    centres = []
    for height, width in shapes:
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres.append(torch.stack(((x + 0.5) / width, (y + 0.5) / height), -1).flatten(0, 1))
    places = torch.cat(centres)[None, :, None].expand(1, tokens, levels, 2).contiguous()
    value = torch.randn((1, tokens, heads, dim), generator=random)
    offsets = 2 * torch.randn((1, tokens, heads, levels, 4, 2), generator=random)
    logits = torch.randn((1, tokens, heads, levels * 4), generator=random)
    return [value, places, offsets, logits], shapes


def interleaved(
    calls: dict[str, Callable[[], object]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every call, in rounds, so that a busy machine slows all alike."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles, and touches fresh memory
    for _ in range(repeats):
        for name, call in calls.items():
            cpu, wall = time.process_time(), time.perf_counter()
            call()
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


def measure(case: str, repeats: int) -> list[Line]:
    """All CPU backends on one case, fed with locations and weights as grid_sample is."""
    (value, places, offsets, logits), shapes = encoder_case(case)
    locations = reference.sampling_locations(places, offsets, shapes)
    weights = reference.sampling_weights(logits, len(shapes), places)
    names = _usable([name for name, known in BACKENDS.items() if "cpu" in known.devices])
    calls: dict[str, Callable[[], Tensor]] = {
        "reference": lambda: reference.msda(value, shapes, locations, weights)
    }
    for name in names:
        calls[name] = partial(load(name).msda, value, shapes, locations, weights)
    out = calls["reference"]()
    size = 4 * (value.numel() + locations.numel() + weights.numel() + out.numel())
    block = torch.empty(size // 8)  # a copy reads and writes: half the bytes each
    times = interleaved({**calls, "copy": block.clone}, repeats)
    copy = statistics.median(wall for _, wall in times.pop("copy"))
    lines = []
    for name, pairs in times.items():
        ratios = [base[0] / mine[0] for base, mine in zip(times["reference"], pairs, strict=True)]
        error = ((calls[name]() - out).norm() / out.norm()).item()
        wall = statistics.median(wall for _, wall in pairs)
        cpu = statistics.median(cpu for cpu, _ in pairs)
        ratio = statistics.median(ratios)
        lines.append(Line(case, name, cpu, wall, ratio, error, size, copy / wall))
    return lines


def ops(
    *,
    case: Annotated[str, typer.Option(help="small, encoder640 or all.")] = "small",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is told.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every backend.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Deformable attention: every CPU backend against grid_sample, forward, float32."""
    if case not in {*CASES, "all"}:
        raise typer.BadParameter(f"no case is called {case!r}: choose {', '.join(CASES)} or all")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            chosen = CASES if case == "all" else (case,)
            lines = [line for name in chosen for line in measure(name, repeats)]
    finally:
        torch.set_num_threads(before)
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines]))
        return
    for line in lines:
        typer.echo(
            f"{line.case:11} {line.backend:14} {line.cpu_s * 1e3:9.1f} ms CPU "
            f"{line.wall_s * 1e3:9.1f} ms {line.speedup:6.1f}x  error {line.error:.1e}  "
            f"{line.least_bytes / 1e6:.0f} MB at least, {line.floor_fraction:.0%} of the floor"
        )
