"""The loop of every training: any weights, any losses, and runs that resume to the same bits."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, distributed, nn

from ape_model.training.data.loader import load_batches
from ape_model.training.errors import TrainingError
from ape_model.training.progress import NORM, Progress, time_left
from ape_model.training.settings import PRECISIONS, step_seed
from ape_model.training.state import average_gradients, restore_state, write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from torch.utils.data import Dataset

    from ape_model.training.averaging import AveragedWeights
    from ape_model.training.data.batch import Batch
    from ape_model.training.settings import EngineConfig

__all__ = ["Engine", "Learner", "Memory"]


class Memory(Protocol):
    """What a run remembers besides weights, such as earlier phrases."""

    def state(self) -> list[Tensor]:
        """Return it, for `load`."""
        ...

    def load(self, state: list[Tensor]) -> None:
        """Restore it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What a run trains and how: all that the loop knows of a task."""

    trained: Mapping[str, nn.Parameter]
    """The weights that learn, by name; only they and `buffers` are in the state."""
    optimizer: torch.optim.Optimizer
    """Over them."""
    losses: Callable[[Batch, int], dict[str, Tensor]]
    """Weighted losses of a batch at a step, by name."""
    rate: Callable[[Mapping[str, Any], int], float]
    """Learning rate of a group of the optimizer at a step."""
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    """What changes with them and is no weight: statistics of batch norms."""
    unclipped: Collection[str] = ()
    """Names of weights whose gradients do not count in the norm and are not clipped."""
    memory: Memory | None = None
    """What is saved with the weights; None: nothing."""
    average: AveragedWeights | None = None
    """Averaged weights; None: there are none."""


class Engine:
    """Trains weights on batches.

    Batch k and everything that step k draws are functions of the seed and k, so that a run that was
    cut off goes on to the same bits.

    Args:
        learner: What is trained.
        config: Length of the run, and when it saves and reports.
        folder: For `state.pt` and `log.jsonl`.
        report: Called with lines of progress.
    """

    def __init__(
        self, learner: Learner, config: EngineConfig, folder: Path, report: Callable[[str], None]
    ) -> None:
        self.learner, self.config, self.folder, self.report = learner, config, folder, report
        parameters = list(learner.trained.values())
        self._clipped = [p for n, p in learner.trained.items() if n not in learner.unclipped]
        self.device = parameters[0].device
        scaled = config.precision == "float16" and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.step, self.images, self.seconds = 0, 0, 0.0
        self._saved = (0, 0.0)  # step and time of the last state
        self.processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self.is_main_process = not distributed.is_initialized() or distributed.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, data: Dataset[Batch], on_save: Callable[[Engine], None] | None = None) -> None:
        """Train to the last step; the state is saved at intervals and at the end.

        Args:
            data: The batch of each step.
            on_save: Called after some saves (`validate_every`) and after the last one.

        Raises:
            DataError: a batch cannot be made.
            TrainingError: a loss or a gradient is NaN or infinite.
        """
        progress, validated = Progress(), self.step
        first, before, began = self.step, self.seconds, time.monotonic()
        self._saved = (self.step, began)
        for batch in load_batches(data, self.step, self.config):
            progress.add(self.advance(batch))
            elapsed = time.monotonic() - began
            self.seconds = before + elapsed
            if self.step % self.config.report_every == 0:
                pace = elapsed / (self.step - first)  # seconds a step, of this call
                self._log_progress(progress, pace * (self.config.steps - self.step))
            if self._is_save_due():
                self.save()
                if on_save is not None and self.step - validated >= self.config.validate_every:
                    validated = self.step
                    on_save(self)
        if self.is_main_process:
            self.save()
            if on_save is not None:
                on_save(self)

    def _is_save_due(self) -> bool:
        # Half of an accumulated gradient is in no state: it is saved between two updates.
        if not self.is_main_process or self.step % self.config.accumulate:
            return False
        step, moment = self._saved
        if self.config.save_every:
            return self.step - step >= self.config.save_every
        return time.monotonic() - moment > self.config.save_every_s

    def advance(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch.

        Returns:
            The weighted losses; where they made an update, also the gradient's norm as `norm`.

        Raises:
            TrainingError: a loss or a gradient is NaN or infinite; no weight has changed then.
        """
        values = self.backward(batch)
        following, accumulate = self.step + 1, self.config.accumulate
        updates = following % accumulate == 0 or following == self.config.steps
        if updates:
            parameters = list(self.learner.trained.values())
            average_gradients(parameters, torch.float16 if self.config.compress else None)
            norm = self.update()
            # A gradient that overflowed has no norm.
            values |= {NORM: norm} if math.isfinite(norm) else {}
        self.step = following
        self.images += len(batch.images) * self.processes
        if updates and self.learner.average is not None:
            self.learner.average.update(self.step // accumulate)
        return values

    def backward(self, batch: Batch) -> dict[str, float]:
        """Add the gradients of one batch to those that are there; return the weighted losses.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        torch.manual_seed(step_seed(self.config.seed, self.step))
        dtype = PRECISIONS[self.config.precision]
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            losses = self.learner.losses(batch, self.step)
            total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):  # before a step could spoil the weights
            raise self._nonfinite("loss")
        if total.requires_grad:  # a batch may hold nothing of what is learnt
            self.scaler.scale(total / self.config.accumulate).backward()
        return {name: value.item() for name, value in losses.items()}

    def update(self) -> float:
        """Take the optimizer's step on the gradients; return their norm before it was clipped.

        Raises:
            TrainingError: a gradient is NaN or infinite.
        """
        optimizer, scaled = self.learner.optimizer, self.scaler.is_enabled()
        if scaled:
            self.scaler.unscale_(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = self.learner.rate(group, self.step)
        try:
            # A scaler leaves out updates of gradients that overflowed, and scales less from then.
            norm = nn.utils.clip_grad_norm_(
                self._clipped, self.config.clip, error_if_nonfinite=not scaled
            )
        except RuntimeError as error:
            raise self._nonfinite("gradient") from error
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _nonfinite(self, what: str) -> TrainingError:
        return TrainingError(
            f"the {what} is NaN or infinite at step {self.step}: lower the learning rate and run"
            f" again, which resumes from the last state in {self.folder}"
        )

    def _log_progress(self, progress: Progress, seconds_left: float) -> None:
        loss, means = progress.take()
        if not self.is_main_process:
            return
        line = {
            "step": self.step,
            "images": self.images,
            "wall_s": round(self.seconds, 1),
            "cpu_s": round(time.process_time(), 1),
            "lr": max(group["lr"] for group in self.learner.optimizer.param_groups),
        }
        self.log(line | {name: round(value, 5) for name, value in means.items()})
        self.report(
            f"step {self.step}/{self.config.steps}: loss {loss:.3f}, {self.images} images,"
            f" {time_left(seconds_left)}"
        )

    def log(self, line: Mapping[str, float | str]) -> None:
        """Append one line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(dict(line)) + "\n")

    def save(self) -> None:
        """Save the whole state; an interrupted write keeps the previous one."""
        learner = self.learner
        state: dict[str, Any] = {
            "trained": {name: value.detach() for name, value in self._tensors().items()},
            "optimizer": learner.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "memory": [] if learner.memory is None else learner.memory.state(),
            "average": {} if learner.average is None else learner.average.weights,
            "counts": {"step": self.step, "images": self.images, "seconds": self.seconds},
        }
        write_state(self.folder, state, self.config.keep)
        self._saved = (self.step, time.monotonic())

    def _tensors(self) -> dict[str, Tensor]:
        """Weights and buffers by name, which a state holds together."""
        return {**self.learner.trained, **self.learner.buffers}

    def load(self) -> bool:
        """Restore the last state of the folder; False where there is none.

        Raises:
            TrainingError: there is one, but it is damaged or of another run.
        """
        return restore_state(self.folder, self.device, self._restore)

    @torch.no_grad()
    def _restore(self, state: Mapping[str, Any]) -> None:
        if "trained" not in state:  # of nano, until it had the loop of the other models
            raise ValueError("a former version wrote it, and can finish it")
        own, learner = self._tensors(), self.learner
        if state["trained"].keys() != own.keys():
            raise ValueError("other weights are trained in it")
        for name, tensor in own.items():
            if state["trained"][name].shape != tensor.shape:
                raise ValueError(f"{name} has another shape")
            tensor.copy_(state["trained"][name])
        learner.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if learner.memory is not None:
            learner.memory.load(state["memory"])
        if learner.average is not None:
            learner.average.load(state["average"])
        counts = state["counts"]
        self.step, self.images = counts["step"], counts["images"]
        # Older states have no seconds.
        self.seconds = counts.get("seconds", 0.0)
