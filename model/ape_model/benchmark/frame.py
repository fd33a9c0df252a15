"""What a whole frame costs: the fast forms of a model against the reference form, in one run.

A form is a way to compute the same frame. All forms take turns, round by round, so that a busy
machine slows all alike; the first form is the baseline of every ratio. A frame begins with
normalised pixels and ends with the mask logits of the regions that are kept.
"""

from __future__ import annotations

import re
import statistics
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ape_model.benchmark.profiler import Seconds, timed_stages
from ape_model.config import PRESETS
from ape_model.errors import ModelMissingError, VariantError
from ape_model.inference.selection import initial_capacity, select
from ape_model.loading import load_network
from ape_model.network.ape import Ape
from ape_model.network.deformable_attention import DeformableAttention
from ape_model.reference.patch import reference_mode
from ape_model.weights.registry import find_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.network.ape import PromptFeatures, RawOutputs

__all__ = [
    "Cost",
    "Form",
    "Frame",
    "StageCost",
    "in_precision",
    "make_frame",
    "measure",
    "open_network",
]

OFFSET_DEVIATION = 2.0
"""Standard deviation, in pixels, of sampling offsets of random weights, as trained ones scatter."""
PER_PROMPT = 100
"""Most regions of one prompt, as a perceiver has it."""
ASIDE = "aside"
"""Work of the benchmark within a frame, left out of its time."""
MEMORY_STATUS = Path("/proc/self/status")
MEMORY_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute the frame."""

    name: str
    """`reference`, a dtype, or a number of prompts."""
    network: Ape
    """In the form's own precision."""
    prompts: int
    """How many of the frame's prompts it takes."""
    reference: bool = False
    """In the reference form, as papers and official code write it."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Input of every form."""

    image: Tensor
    """(1, 3, H, W) float32 normalised."""
    embeddings: Tensor
    """(P, Dl) float32, as a text tower would give them."""
    sentences: bool
    """Prompts are descriptions, fused with the image; else names."""
    regions: int
    """(query, prompt) pairs above the threshold, before suppression."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """Medians of one stage of one form."""

    stage: str
    """A name of `ape_model.benchmark.profiler`."""
    cpu_s: float
    """CPU seconds of all threads."""
    wall_s: float
    """Wall seconds; on a GPU those of its stream."""
    speedup: float | None
    """Baseline's time over this one's; CPU time, on a GPU the stream's. None: no such stage."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one form costs."""

    form: str
    """Its name."""
    cpu_s: float
    """Median CPU seconds of a frame, all threads together."""
    wall_s: float
    """Median wall seconds of a frame; on a GPU those of its stream."""
    speedup: float
    """Baseline's time over this one's, the median over the rounds; see `StageCost.speedup`."""
    peak_bytes: int | None
    """Most memory held during a frame: of the process, weights of all forms included; on a GPU
    torch's own. None where the system does not report it."""
    errors: dict[str, float]
    """Relative differences from the baseline (Frobenius) of `memory` and `mask_feature`, which
    no choice of queries changes, and `other_queries`, the share of queries chosen otherwise."""
    stages: list[StageCost] = field(default_factory=list)
    """Stage by stage, each without what is inside it."""


def open_network(name: str, device: torch.device) -> tuple[Ape, str]:
    """A model by name, and where its weights come from: `installed` or `random`.

    Raises:
        ModelError: it is neither here nor a released variant, or cannot be read.
    """
    try:
        return load_network(find_model(name), device), "installed"
    except ModelMissingError:
        if name not in PRESETS:
            raise
    # Fresh sampling offsets point along fixed rays: such reads are cheaper than trained ones.
    torch.manual_seed(0)
    network = Ape(PRESETS[name]).eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, DeformableAttention):
            weight = module.sampling_offsets.weight
            # Its input, content plus position, has two units of variance in every channel.
            nn.init.normal_(weight, std=OFFSET_DEVIATION / (2 * weight.shape[1]) ** 0.5)
            nn.init.normal_(module.attention_weights.weight, std=weight.shape[1] ** -0.5)
    return network.to(device), "random"


def make_frame(
    network: Ape, side: int, prompts: int, *, sentences: bool = False, regions: int = 100
) -> Frame:
    """A noise image and random prompt vectors, the same ones every time.

    Raises:
        VariantError: the model takes no square of this side.
    """
    divisor = network.config.size_divisor or 64  # the coarsest stride of the released models
    if side < divisor or side % divisor:
        raise VariantError(
            f"size must be a multiple of {divisor} pixels for this model, got {side}"
        )
    random = torch.Generator().manual_seed(0)
    device = next(network.parameters()).device
    return Frame(
        torch.randn((1, 3, side, side), generator=random).to(device),
        torch.randn((prompts, network.config.text_width), generator=random).to(device),
        sentences,
        regions,
    )


def in_precision(network: Ape, dtype: torch.dtype) -> Ape:
    """The network itself in float32, a copy in any other precision."""
    return network if dtype == torch.float32 else deepcopy(network).to(dtype)


def _dtype(form: Form) -> torch.dtype:
    return next(form.network.parameters()).dtype


def _prompts(form: Form, frame: Frame) -> PromptFeatures:
    """As a perceiver prepares them, once for many frames; the reference form projects in each."""
    network = form.network
    kind = network.sentences if frame.sentences else network.vocabulary
    prompts = kind(frame.embeddings[: form.prompts].to(_dtype(form)))
    # Without vectors the head projects the prompts itself, in every frame.
    return replace(prompts, vectors=None, biases=None) if form.reference else prompts


def _run(form: Form, frame: Frame, prompts: PromptFeatures) -> RawOutputs:
    """Everything before selection."""
    return form.network(frame.image.to(_dtype(form)), prompts)


def _threshold(outputs: RawOutputs, regions: int) -> Tensor:
    """(P,) the same for all prompts, so that `regions` pairs are above it."""
    # Random weights have no useful scores: the threshold is set so that the work is that of a
    # frame with this many regions.
    scores = outputs.logits.sigmoid().flatten()
    return scores.topk(min(regions, len(scores))).values[-1:].expand(outputs.logits.shape[-1])


def _mask_logits(form: Form, outputs: RawOutputs, threshold: Tensor) -> Tensor:
    """(K, H, W) mask logits of what is kept."""
    device = outputs.logits.device
    batch = (outputs.logits, outputs.boxes, threshold)
    ((found,),) = select([batch], per_prompt=PER_PROMPT, capacity=initial_capacity(device))
    return form.network.region_masks(outputs, 0, found.queries)


def _errors(outputs: RawOutputs, wanted: RawOutputs) -> dict[str, float]:
    found = {}
    for name in ("memory", "mask_feature"):
        true = getattr(wanted, name).float()
        # ||a - b|| / ||b||, Frobenius
        found[name] = ((getattr(outputs, name).float() - true).norm() / true.norm()).item()
    # Rounding can exchange two close candidates: compared as sets, by index.
    mine, other = (set(o.proposals.tokens[0].tolist()) for o in (outputs, wanted))
    return {**found, "other_queries": 1 - len(mine & other) / len(other)}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        MEMORY_RESET.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:  # no Linux, or not allowed: then the peak is that of the whole process
        return


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not MEMORY_STATUS.exists():
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", MEMORY_STATUS.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


@dataclass(slots=True)
class _Log:
    """Measurements of one form, round by round."""

    totals: list[Seconds] = field(default_factory=list)
    stages: list[dict[str, Seconds]] = field(default_factory=list)
    peaks: list[int | None] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)


@torch.inference_mode()
def measure(forms: Sequence[Form], frame: Frame, repeats: int) -> list[Cost]:
    """All forms in rounds; the first is the baseline.

    Args:
        forms: At least one.
        frame: Their input.
        repeats: Rounds, at least one; fast forms run once before them, which compiles kernels.
    """
    # The reference form has no kernels to compile, and a round of it takes long.
    for form in forms:
        if not form.reference:
            _run(form, frame, _prompts(form, frame))
    logs = {form.name: _Log() for form in forms}
    wanted: RawOutputs | None = None
    for index in range(repeats):
        for form in forms:
            outputs = _round(form, frame, logs[form.name])
            # Inputs are the same in every round: errors of the first are those of all.
            if not index:
                wanted = outputs if wanted is None else wanted
                logs[form.name].errors = _errors(outputs, wanted)
            del outputs  # else the next form's peak would count them
        wanted = None
    by_cpu = frame.image.device.type == "cpu"
    base = logs[forms[0].name]
    return [_cost(form.name, logs[form.name], base, by_cpu=by_cpu) for form in forms]


def _round(form: Form, frame: Frame, log: _Log) -> RawOutputs:
    """One frame of one form, measured."""
    device = frame.image.device
    _forget_peak(device)
    mode = reference_mode(form.network) if form.reference else nullcontext()
    with mode, timed_stages(form.network) as stages:
        prompts = stages.around(ASIDE, _prompts)(form, frame)
        outputs = _run(form, frame, prompts)
        threshold = stages.around(ASIDE, _threshold)(outputs, frame.regions)
        _mask_logits(form, outputs, threshold)
    log.peaks.append(_peak(device))
    log.stages.append(stages.seconds())
    log.stages[-1].pop(ASIDE)  # before the sum: it is no part of the frame
    seconds = log.stages[-1].values()
    log.totals.append(Seconds(sum(s.cpu_s for s in seconds), sum(s.wall_s for s in seconds)))
    return outputs


def _cost(form: str, log: _Log, base: _Log, *, by_cpu: bool) -> Cost:
    stages = []
    for stage in log.stages[0]:
        mine = [seconds[stage] for seconds in log.stages]
        theirs = [seconds[stage] for seconds in base.stages if stage in seconds]
        speedup = _speedup(theirs, mine, by_cpu=by_cpu) if theirs else None
        stages.append(StageCost(stage, _cpu(mine), _wall(mine), speedup))
    return Cost(
        form=form,
        cpu_s=_cpu(log.totals),
        wall_s=_wall(log.totals),
        speedup=_speedup(base.totals, log.totals, by_cpu=by_cpu),
        peak_bytes=max((peak for peak in log.peaks if peak is not None), default=None),
        errors=log.errors,
        stages=stages,
    )


def _cpu(seconds: Sequence[Seconds]) -> float:
    return statistics.median(s.cpu_s for s in seconds)


def _wall(seconds: Sequence[Seconds]) -> float:
    return statistics.median(s.wall_s for s in seconds)


def _speedup(base: Sequence[Seconds], mine: Sequence[Seconds], *, by_cpu: bool) -> float:
    # Ratio by ratio, then the median: both of a pair were measured in the same round.
    pairs = [
        (b.cpu_s, m.cpu_s) if by_cpu else (b.wall_s, m.wall_s)
        for b, m in zip(base, mine, strict=True)
    ]
    return statistics.median(b / max(m, 1e-9) for b, m in pairs)
