"""Time of a frame by stage, each without the stages inside it.

    with timed_stages(model) as stages:
        model(images, prompts)
    for stage, (cpu_s, wall_s) in stages.seconds().items(): ...

The network has no code for it: its methods are wrapped while the block lasts.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from ape_model.network.ape import Ape

__all__ = ["REST", "Seconds", "StageTimer", "timed_stages"]

REST = "rest"
"""Everything else: geometry, selection, and the glue between stages."""


class Seconds(NamedTuple):
    """Cost of one stage."""

    cpu_s: float
    """CPU seconds of all threads."""
    wall_s: float
    """Wall seconds; on a GPU those of its stream, between events."""


class _Mark(NamedTuple):
    """A moment at which one stage ends and another begins."""

    stage: str
    """The one that begins."""
    cpu: float
    """`time.process_time()`, seconds."""
    wall: float
    """`time.perf_counter()`, seconds."""
    event: Any
    """In the stream of a GPU; None on a CPU."""


class StageTimer:
    """The marks of one run.

    Args:
        device: Where the network runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open = [REST]
        self._marks: list[_Mark] = []

    def mark(self) -> None:
        """Count time for the innermost open stage from now on; on a GPU the host does not wait."""
        # A GPU works behind the host: an event in its stream is the moment that counts.
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self._marks.append(_Mark(self._open[-1], time.process_time(), time.perf_counter(), event))

    def around(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, its time counted for `stage`."""

        def timed(*given: Any, **named: Any) -> Any:
            # Two marks per call: a stage begins, and the one around it goes on.
            self._open.append(stage)
            self.mark()
            try:
                return call(*given, **named)
            finally:
                self._open.pop()
                self.mark()

        return timed

    def seconds(self) -> dict[str, Seconds]:
        """Cost of every stage, in the order of their first calls; waits for a GPU to finish."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        total: dict[str, Seconds] = {}
        for mark, after in zip(self._marks, self._marks[1:], strict=False):
            so_far = total.get(mark.stage, Seconds(0.0, 0.0))
            # Between two marks time belongs to the innermost stage alone, so nothing counts twice.
            wall = after.wall - mark.wall
            if mark.event is not None:
                wall = mark.event.elapsed_time(after.event) / 1e3  # milliseconds
            total[mark.stage] = Seconds(so_far.cpu_s + after.cpu - mark.cpu, so_far.wall_s + wall)
        return total


def _stages(model: Ape) -> Iterator[tuple[str, nn.Module, str]]:
    """Stage, module and method of everything that is timed; what is inside comes later."""
    transformer = model.transformer
    simple = hasattr(model.backbone, "net")  # a ViT inside a pyramid; nano's is one piece
    yield "pyramid" if simple else "backbone", model.backbone, "forward"
    if simple:
        yield "vision transformer", model.backbone.net, "forward"  # type: ignore[misc]
    if model.config.neck:
        yield "neck", model.neck, "forward"
    yield "encoder, rest", transformer, "encode"
    for layer in transformer.encoder.layers:
        yield "encoder attention", layer.attentions[0], "project_value"  # type: ignore[index, misc]
        yield "encoder attention", layer.attentions[0], "forward"  # type: ignore[index, misc]
        yield "encoder feed-forward", layer.ffns[0], "forward"  # type: ignore[index, misc]
    for layer in transformer.encoder.vl_layers if model.config.fusion else ():
        yield "fusion", layer, "forward"
    yield "proposals", transformer, "score"
    yield "proposals", transformer, "propose"
    yield "decoder", transformer, "decode"
    align = transformer.decoder.aligns[-1]
    yield "alignment", align, "forward"
    yield "alignment", align, "score"
    yield "masks", model.mask_head, "feature"
    yield "masks", model, "region_masks"


@contextmanager
def timed_stages(model: Ape) -> Iterator[StageTimer]:
    """Inside the block, the stages of `model` are timed; not for use from several threads."""
    stages = StageTimer(next(model.parameters()).device)
    before: list[tuple[nn.Module, str, Any]] = []
    for stage, module, name in _stages(model):
        # What is on the object itself, not on its class, must come back afterwards.
        before.append((module, name, module.__dict__.get(name)))
        setattr(module, name, stages.around(stage, getattr(module, name)))
    stages.mark()
    try:
        yield stages
    finally:
        stages.mark()
        for module, name, own in before:
            if own is None:
                delattr(module, name)
            else:  # a reference form that reference_mode had set
                setattr(module, name, own)
