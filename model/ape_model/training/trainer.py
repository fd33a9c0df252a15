"""The training loop: it resumes at any step, and the same seed gives the same result."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from ape_model.training.errors import DataError, TrainingError
from ape_model.training.losses.criterion import CLASSIFICATIONS, Criterion
from ape_model.training.rates import layer_factor
from ape_model.training.state import average_gradients, restore_state, time_left, write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch
    from ape_model.training.prompts.sampler import PromptSampler

__all__ = ["ErrorsAsItems", "LoopConfig", "StepRange", "Trainer"]

HEAD_RATE = 1e-3
"""Learning rate of the criterion's class head during `heads_first`."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Length and optimizer of a run: the keys at the top of a recipe."""

    steps: int
    """Number of batches."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW between warm-up and decay."""
    weight_decay: float = 0.05
    """Weight decay of matrices; norms, biases and gates have none."""
    warm_up: int = 250
    """Steps in which the learning rate rises linearly."""
    decay_from: float = 0.45
    """Part of the run, 0..1, after which the learning rate falls to zero (cosine)."""
    heads_first: int = 0
    """First steps in which the criterion's class head learns at its own rate and the network gets
    no gradient from it: for runs that start from trained weights, where that head is new."""
    freeze_norms: bool = False
    """Batch norms keep their statistics, as in inference: for runs that start from trained weights
    with small batches."""
    clip: float = 5.0
    """Largest norm of the network's gradient; a larger one is scaled down."""
    ema: float = 0.998
    """Decay of the averaged weights per step, 0..1."""
    layer_decay: float = 1.0
    """Learning rate of a backbone block over that of the next one, 0..1; the stem comes first."""
    negative_words: int = 96
    """Number of words of other things among the prompts of a step with names."""
    classification: str = "quality"
    """`quality`: scores predict the IoU of the box. `focal`: scores predict yes or no, as in the
    official criterion (alpha .25, gamma 2)."""
    text: str = ""
    """File of `ape-stream train-text`, relative to the recipe; empty: that of `--init`, or nano."""
    seed: int = 0
    """Seed of the initial weights, the data and the prompts."""
    save_every_s: float = 120.0
    """Seconds between two states."""
    validate_every: int = 100
    """Least steps between two validations; each follows a state."""
    report_every: int = 50
    """Steps between two lines of the log."""
    workers: int = 1
    """Processes that load batches; 0: the training process itself."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        if min(self.steps, self.report_every, self.validate_every) < 1:
            raise ValueError("steps, report_every and validate_every must be at least 1")
        if not (self.learning_rate > 0 and self.clip > 0 and 0 < self.layer_decay <= 1):
            raise ValueError(
                "learning_rate and clip must be over 0, layer_decay over 0 and at most 1"
            )
        if not (0 <= self.ema < 1 and 0 <= self.decay_from < 1):
            raise ValueError("ema and decay_from must be 0..1 and below 1")
        if min(self.warm_up, self.heads_first, self.negative_words, self.seed, self.workers) < 0:
            raise ValueError("warm_up, heads_first, negative_words, seed, workers: 0 or more")
        if self.weight_decay < 0:
            raise ValueError("weight_decay must be 0 or more")
        if self.classification not in CLASSIFICATIONS:
            raise ValueError(f"classification must be one of {', '.join(CLASSIFICATIONS)}")


class ErrorsAsItems(Dataset["Batch | DataError"]):
    """Batches, or the error of one: DataLoader would wrap an error of a worker in its traceback."""

    def __init__(self, data: Dataset[Batch]) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | DataError:
        try:
            return self.data[step]
        except DataError as error:
            return error


class StepRange(Sampler[int]):
    """The steps from `first` up to the end of the run."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.steps))

    def __len__(self) -> int:
        return max(0, self.steps - self.first)


class Trainer:
    """Trains a network on batches.

    Args:
        model: the network.
        prompt_sampler: chooses the prompts of a batch.
        config: length and optimizer of the run.
        folder: for `state.pt` and `log.jsonl`.
        report: called with lines of progress.
    """

    def __init__(
        self,
        model: Ape,
        prompt_sampler: PromptSampler,
        config: LoopConfig,
        folder: Path,
        report: Callable[[str], None],
    ) -> None:
        torch.manual_seed(config.seed)  # of the criterion's own weights
        self.report = report
        self.device = next(model.parameters()).device
        self.model, self.prompt_sampler = model, prompt_sampler
        self.config, self.folder = config, folder
        self.criterion = Criterion(
            model.config.hidden, model.config.text_width, config.classification
        ).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self._norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}  # averaged
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self.is_main_process = not distributed.is_initialized() or distributed.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups by weight decay and learning rate; the criterion's come last."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        # The order of the groups is part of a saved state: the optimizer restores them by position.
        for name, p in self.model.named_parameters():
            groups.setdefault((p.ndim >= 2, self._scale(name)), []).append(p)
        decay = self.config.weight_decay
        listed: list[dict[str, Any]] = [
            {"params": ps, "weight_decay": decay if wide else 0.0, "scale": scale, "head": False}
            for (wide, scale), ps in groups.items()
        ]
        for wide in (True, False):
            ps = [p for p in self.criterion.parameters() if (p.ndim >= 2) is wide]
            rate = {"weight_decay": decay if wide else 0.0, "scale": 1.0, "head": True}
            listed.append({"params": ps, **rate})
        return listed

    def _scale(self, name: str) -> float:
        """Factor of a weight's learning rate."""
        return layer_factor(name, self.model.config.backbone.depth, self.config.layer_decay)

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, constant, cosine to zero."""
        c = self.config
        if step < c.warm_up:
            return c.learning_rate * (step + 1) / c.warm_up
        part = max(0.0, (step / c.steps - c.decay_from) / (1 - c.decay_from))  # of the decay
        return c.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

    def run(self, data: Dataset[Batch], on_save: Callable[[Trainer], None] | None = None) -> None:
        """Train to the last step; the state is saved at intervals and at the end.

        Args:
            data: the batch of each step.
            on_save: called after some saves (`validate_every`) and after the last one.

        Raises:
            DataError: a batch cannot be made.
            TrainingError: a loss or a gradient is NaN or infinite.
        """
        # Batch k is a function of seed and k, so resuming only means to begin at a later step.
        loader = DataLoader(
            ErrorsAsItems(data),
            batch_size=None,  # items are whole batches
            sampler=StepRange(self.step, self.config.steps),
            num_workers=self.config.workers,
            prefetch_factor=4 if self.config.workers else None,
        )
        saved = began = time.monotonic()
        validated = self.step
        sums: dict[str, list[float]] = {}
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            for name, value in self.advance(batch).items():
                sums.setdefault(name, []).append(value)
            now = time.monotonic()
            self.seconds += now - began
            began = now
            if self.step % self.config.report_every == 0 and self.is_main_process:
                self._log_progress(sums)
                sums = {}
            if now - saved > self.config.save_every_s and self.is_main_process:
                self.save()
                saved = now
                if on_save is not None and self.step - validated >= self.config.validate_every:
                    validated = self.step
                    on_save(self)
        if self.is_main_process:
            self.save()
            if on_save is not None:
                on_save(self)

    def advance(self, batch: Batch) -> dict[str, float]:
        """Train one step on one batch; return the weighted losses and the gradient's norm.

        Raises:
            TrainingError: a loss or a gradient is NaN or infinite; no weight has changed then.
        """
        losses = self.backward(batch)
        self._all_reduce_gradients()
        return losses | {"norm": self.update(len(batch.images) * self.processes)}

    def backward(self, batch: Batch) -> dict[str, float]:
        """Compute the gradients of one batch; return the weighted losses.

        Raises:
            TrainingError: a loss is NaN or infinite.
        """
        self.model.train()
        if self.config.freeze_norms:
            for norm in self._norms:
                norm.eval()
        batch = batch.to(self.device)
        sampled = self.prompt_sampler(self.model, batch, self.step)
        # Only the backbone is cut off: what follows it still trains on its features.
        with torch.set_grad_enabled(sampled.trains_backbone):
            features = self.model.encode_image(batch.images, batch.sizes)
        outputs = self.model.head(features, sampled.prompts)
        apart = self.step < self.config.heads_first
        losses = self.criterion(self.model, features, outputs, batch, sampled.targets, apart=apart)
        total = torch.stack(list(losses.values())).sum()
        self._raise_if_nonfinite(total)  # before a step could spoil the weights
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        prefix = "s/" if sampled.targets.names is None else ""  # losses of sentences, in the log
        return {f"{prefix}{k}": v.item() for k, v in losses.items()}

    def update(self, images: int) -> float:
        """Take the optimizer's step; return the gradient's norm before it was clipped.

        Args:
            images: number of images that the gradients come from, in all processes.

        Raises:
            TrainingError: a gradient is NaN or infinite.
        """
        # "scale" and "head" are ours: the optimizer keeps what it does not know in its groups.
        for group in self.optimizer.param_groups:
            alone = group["head"] and self.step < self.config.heads_first
            group["lr"] = HEAD_RATE if alone else self.rate(self.step) * group["scale"]
        try:
            # Without the criterion's class head, whose gradients must not shrink the network's.
            norm = nn.utils.clip_grad_norm_(
                self.model.parameters(), self.config.clip, error_if_nonfinite=True
            )
        except RuntimeError as error:
            raise self._nonfinite("gradient") from error
        self.optimizer.step()
        self.step += 1
        self.images += images
        self._average()
        return float(norm)

    def _raise_if_nonfinite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise self._nonfinite("loss")

    def _nonfinite(self, what: str) -> TrainingError:
        return TrainingError(
            f"the {what} is NaN or infinite at step {self.step}: lower the learning rate and run"
            f" again, which resumes from the last state in {self.folder}"
        )

    def _all_reduce_gradients(self) -> None:
        average_gradients([p for group in self.optimizer.param_groups for p in group["params"]])

    def _average(self) -> None:
        """Move the averaged weights towards the current ones, faster in the first steps."""
        # Early weights are poor: the average forgets them within a few steps.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        # Not the counters of batch norms, which are whole numbers and not used.
        floats = [k for k, v in current.items() if v.is_floating_point()]
        average = get_ema_multi_avg_fn(decay)
        average([self.ema[k] for k in floats], [current[k] for k in floats], self.step)

    def _log_progress(self, sums: dict[str, list[float]]) -> None:
        line = {
            "step": self.step,
            "images": self.images,
            "wall_s": round(self.seconds, 1),
            "cpu_s": round(time.process_time(), 1),
            "lr": round(self.rate(self.step), 7),
        }
        line |= {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
        self.log(line)
        total = sum(sum(v) / len(v) for k, v in sums.items() if k != "norm")
        left = time_left(self.seconds / self.step * (self.config.steps - self.step))
        self.report(
            f"step {self.step}/{self.config.steps}: loss {total:.3f}, {self.images} images, {left}"
        )

    def log(self, line: Mapping[str, float | str]) -> None:
        """Append one line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(dict(line)) + "\n")

    def save(self) -> None:
        """Save the whole state; an interrupted write keeps the previous one."""
        state = {
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "memory": self.prompt_sampler.state(),
            "counts": {"step": self.step, "images": self.images, "seconds": self.seconds},
        }
        write_state(self.folder, state)

    def load(self) -> bool:
        """Restore the last state of the folder; False where there is none.

        Raises:
            TrainingError: there is one, but it is damaged or of another run.
        """
        return restore_state(self.folder, self.device, self._restore)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        if "memory" in state:  # older states have no queue
            self.prompt_sampler.load(state["memory"])
        counts = state["counts"]
        self.step, self.images, self.seconds = counts["step"], counts["images"], counts["seconds"]
