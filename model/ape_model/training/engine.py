"""A loop for any weights and any losses: accumulation, 16 bits, and runs that resume to the bit."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset

from ape_model.training.errors import DataError, TrainingError
from ape_model.training.state import average_gradients, restore_state, time_left, write_state
from ape_model.training.trainer import ErrorsAsItems, StepRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ape_model.training.data.batch import Batch

__all__ = ["PRECISIONS", "Engine", "EngineConfig", "Memory"]

PRECISIONS: Final = {
    "float32": None,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""What a network computes in while its weights stay float32 (automatic mixed precision)."""
_STREAM: Final = 1_000_003
"""A prime over any number of steps: runs of neighbouring seeds share no stream of chance."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Length and optimizer of a run."""

    steps: int
    """Number of batches."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    clip: float = 0.1
    """Largest norm of the gradient; a larger one is scaled down."""
    precision: str = "float32"
    """`float32`, or `float16` or `bfloat16` on hardware that is faster in it."""
    compress: bool = False
    """Whether processes send each other gradients as float16."""
    seed: int = 0
    """Of everything that a step draws."""
    workers: int = 1
    """Processes that load batches; 0: the training process itself."""
    save_every_s: float = 120.0
    """Seconds between two states."""
    save_every: int = 0
    """Batches between two states; 0: `save_every_s` decides."""
    keep: int = 1
    """States that are kept: state.pt, and older ones as state.1.pt ..."""
    report_every: int = 20
    """Batches between two lines of the log."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        if min(self.steps, self.accumulate, self.report_every, self.keep) < 1:
            raise ValueError("steps, accumulate, report_every and keep must be at least 1")
        if not self.clip > 0:
            raise ValueError("clip must be over 0")
        if min(self.seed, self.workers, self.save_every) < 0:
            raise ValueError("seed, workers and save_every must be 0 or more")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")


class Memory(Protocol):
    """What a run remembers besides weights, such as earlier phrases."""

    def state(self) -> list[Tensor]:
        """Return it, for `load`."""
        ...

    def load(self, state: list[Tensor]) -> None:
        """Restore it."""
        ...


class Engine:
    """Trains weights on batches.

    Batch k and everything that step k draws are functions of the seed and k, so that a run that was
    cut off goes on to the same bits.

    Args:
        trained: the weights that learn, by name; only they are in the state.
        optimizer: over them; its groups have a key `base`, their learning rate before the schedule.
        losses: weighted losses of a batch, by name.
        schedule: factor of the learning rate at a step.
        config: length and optimizer of the run.
        folder: for `state.pt` and `log.jsonl`.
        report: called with lines of progress.
        memory: what is saved with the weights; None: nothing.
    """

    def __init__(
        self,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        losses: Callable[[Batch], dict[str, Tensor]],
        schedule: Callable[[int], float],
        config: EngineConfig,
        folder: Path,
        report: Callable[[str], None],
        memory: Memory | None = None,
    ) -> None:
        self.trained, self.optimizer, self.losses = dict(trained), optimizer, losses
        self.schedule, self.config, self.folder = schedule, config, folder
        self.report, self.memory = report, memory
        self.device = next(iter(self.trained.values())).device
        scaled = config.precision == "float16" and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.step, self.images = 0, 0
        self._began, self._first = 0.0, 0  # time and step at which this call of `run` began
        ranks = distributed.is_initialized()
        self.is_main_process = not ranks or distributed.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, data: Dataset[Batch]) -> None:
        """Train to the last step; the state is saved at intervals and at the end.

        Args:
            data: the batch of each step.

        Raises:
            DataError: a batch cannot be made.
            TrainingError: a loss or a gradient is NaN or infinite.
        """
        loader = DataLoader(
            ErrorsAsItems(data),
            batch_size=None,  # items are whole batches
            sampler=StepRange(self.step, self.config.steps),
            num_workers=self.config.workers,
        )
        saved = self._began = time.monotonic()
        self._first = saved_step = reported = self.step
        sums: dict[str, list[float]] = {}
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            for name, value in self.advance(batch).items():
                sums.setdefault(name, []).append(value)
            if self.step % self.config.report_every == 0 and self.is_main_process:
                self._log_progress(sums, self.step - reported)
                sums, reported = {}, self.step
            # Half of an accumulated gradient is in no state: it is saved between two updates.
            updated = self.step % self.config.accumulate == 0
            late = time.monotonic() - saved > self.config.save_every_s
            if self.config.save_every:
                late = self.step - saved_step >= self.config.save_every
            if updated and late and self.is_main_process:
                self.save()
                saved, saved_step = time.monotonic(), self.step
        if self.is_main_process:
            self.save()

    def advance(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch; return the weighted losses.

        Raises:
            TrainingError: a loss or a gradient is NaN or infinite; no weight has changed then.
        """
        torch.manual_seed(self.config.seed * _STREAM + self.step)  # of all that this step draws
        dtype = PRECISIONS[self.config.precision]
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            losses = self.losses(batch)
            total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise self._nonfinite("loss")
        if total.requires_grad:  # a batch may hold nothing of what is learnt
            self.scaler.scale(total / self.config.accumulate).backward()
        self.step += 1
        self.images += len(batch.images)
        if self.step % self.config.accumulate == 0 or self.step == self.config.steps:
            self._update()
        return {name: value.item() for name, value in losses.items()}

    def _update(self) -> None:
        """Take the optimizer's step on the gradients of the last batches."""
        parameters = list(self.trained.values())
        average_gradients(parameters, torch.float16 if self.config.compress else None)
        self.scaler.unscale_(self.optimizer) if self.scaler.is_enabled() else None
        factor = self.schedule(self.step - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        try:
            # A scaler leaves out updates of gradients that overflowed, and scales less from then.
            strict = not self.scaler.is_enabled()
            nn.utils.clip_grad_norm_(parameters, self.config.clip, error_if_nonfinite=strict)
        except RuntimeError as error:
            raise self._nonfinite("gradient") from error
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _nonfinite(self, what: str) -> TrainingError:
        return TrainingError(
            f"the {what} is NaN or infinite at step {self.step}: lower the learning rate and run"
            f" again, which resumes from the last state in {self.folder}"
        )

    def _log_progress(self, sums: dict[str, list[float]], batches: int) -> None:
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        line = {"step": self.step, "images": self.images, "rate": self.schedule(self.step - 1)}
        self.log(line | {name: round(value, 5) for name, value in means.items()})
        total = sum(sum(values) for values in sums.values()) / batches
        pace = (time.monotonic() - self._began) / (self.step - self._first)  # seconds a step
        left = time_left(pace * (self.config.steps - self.step))
        self.report(
            f"step {self.step}/{self.config.steps}: loss {total:.3f}, {self.images} images, {left}"
        )

    def log(self, line: Mapping[str, float | str]) -> None:
        """Append one line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(dict(line)) + "\n")

    def save(self) -> None:
        """Save the whole state; an interrupted write keeps the previous one."""
        state: dict[str, Any] = {
            "trained": {name: value.detach() for name, value in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "memory": [] if self.memory is None else self.memory.state(),
            "counts": {"step": self.step, "images": self.images},
        }
        write_state(self.folder, state, self.config.keep)

    def load(self) -> bool:
        """Restore the last state of the folder; False where there is none.

        Raises:
            TrainingError: there is one, but it is damaged or of another run.
        """
        return restore_state(self.folder, self.device, self._restore)

    @torch.no_grad()
    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["trained"].keys() != self.trained.keys():
            raise ValueError("other weights are trained in it")
        for name, parameter in self.trained.items():
            if state["trained"][name].shape != parameter.shape:
                raise ValueError(f"{name} has another shape")
            parameter.copy_(state["trained"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.memory is not None:
            self.memory.load(state["memory"])
        self.step, self.images = state["counts"]["step"], state["counts"]["images"]
