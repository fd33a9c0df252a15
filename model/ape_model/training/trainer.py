"""The training loop: resumable to the step, one seed one result."""

from __future__ import annotations

import json
import math
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ape_model.training.errors import DataError, TrainingError
from ape_model.training.losses.criterion import CLASSIFICATIONS, Criterion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ape_model.network.nano import Nano
    from ape_model.training.data.batch import Batch
    from ape_model.training.prompts.sampler import Prompter

__all__ = ["LoopConfig", "Trainer"]

HEAD_RATE = 1e-3
"""Learning rate of the head that exists in training alone while it learns alone."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How long and how fast: the keys at the top of a recipe."""

    steps: int
    """Batches of the run."""
    learning_rate: float = 1e-3
    """Of AdamW, between warm-up and decay."""
    weight_decay: float = 0.05
    """Of matrices; norms, biases and gates do not decay."""
    warm_up: int = 250
    """Steps in which the learning rate rises."""
    decay_from: float = 0.45
    """Part of the run after which the learning rate falls, 0..1."""
    heads_first: int = 0
    """First steps in which the head that exists in training alone learns at full rate, and the
    network does not learn from it: for runs that go on from trained weights."""
    freeze_norms: bool = False
    """Batch norms keep their statistics, so that training sees what inference does: for runs that
    go on from trained weights with small batches."""
    clip: float = 5.0
    """Largest norm of the network's gradient."""
    ema: float = 0.998
    """How much of the averaged weights stays at a step, 0..1."""
    layer_decay: float = 1.0
    """Learning rate of a backbone block over that of the next one; the stem comes first."""
    strangers: int = 96
    """Words of other things that are asked for in every vocabulary step."""
    classification: str = "quality"
    """`quality`: scores say how well the box fits. `focal`: scores say yes or no, as in the
    official criterion (alpha .25, gamma 2)."""
    text: str = ""
    """File of `ape-stream train-text` beside the recipe; empty: that of `--init`, or nano's."""
    seed: int = 0
    """Of the first weights, the data and the prompts."""
    save_every_s: float = 120.0
    """Seconds between two states."""
    validate_every: int = 100
    """Least steps between two validations; each follows a state."""
    report_every: int = 50
    """Steps between two lines of the log."""
    workers: int = 1
    """Processes that make batches; 0: the training process itself."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        if min(self.steps, self.report_every, self.validate_every) < 1:
            raise ValueError("steps, report_every and validate_every are at least 1")
        if not (self.learning_rate > 0 and self.clip > 0 and 0 < self.layer_decay <= 1):
            raise ValueError("learning_rate and clip are over 0, layer_decay is 0..1 and over 0")
        if not (0 <= self.ema < 1 and 0 <= self.decay_from < 1):
            raise ValueError("ema and decay_from are 0..1 and below 1")
        if min(self.warm_up, self.heads_first, self.strangers, self.seed, self.workers) < 0:
            raise ValueError("warm_up, heads_first, strangers, seed and workers are 0 or more")
        if self.weight_decay < 0:
            raise ValueError("weight_decay is 0 or more")
        if self.classification not in CLASSIFICATIONS:
            raise ValueError(f"classification is one of {', '.join(CLASSIFICATIONS)}")


class _Told(Dataset["Batch | DataError"]):
    """Batches, or what is wrong with one: raised in a worker, an error would be many lines."""

    def __init__(self, data: Dataset[Batch]) -> None:
        self.data = data

    def __getitem__(self, step: int) -> Batch | DataError:
        try:
            return self.data[step]
        except DataError as error:
            return error


class _From(Sampler[int]):
    """Steps in order, from one on."""

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
        prompter: chooses what a batch is asked for.
        config: the recipe.
        folder: where states and the log go.
        say: takes progress lines.
    """

    def __init__(
        self,
        model: Nano,
        prompter: Prompter,
        config: LoopConfig,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        torch.manual_seed(config.seed)
        self.say = say
        self.device = next(model.parameters()).device
        self.model, self.prompter, self.config, self.folder = model, prompter, config, folder
        self.criterion = Criterion(
            model.config.hidden, model.config.text_width, config.classification
        ).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self._norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self.first = not distributed.is_initialized() or distributed.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    def _groups(self) -> list[dict[str, Any]]:
        """Weights decay; norms, biases and gates do not; sampling offsets learn slowly."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
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
        """Learning rate of a weight over that of most weights."""
        if "sampling_offsets" in name:
            return 0.1
        depth = self.model.config.backbone.depth
        if name.startswith("backbone.blocks."):
            return self.config.layer_decay ** (depth - int(name.split(".")[2]))
        stem = name.startswith("backbone.stem")
        return self.config.layer_decay ** (depth + 1) if stem else 1.0

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, constant, cosine to zero."""
        c = self.config
        if step < c.warm_up:
            return c.learning_rate * (step + 1) / c.warm_up
        part = max(0.0, (step / c.steps - c.decay_from) / (1 - c.decay_from))
        return c.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

    def run(self, data: Dataset[Batch], on_save: Callable[[Trainer], None] | None = None) -> None:
        """Train until the last step; states are written as time passes and at the end.

        Raises:
            DataError: a batch cannot be made.
            TrainingError: a loss or a gradient is no number.
        """
        loader = DataLoader(
            _Told(data),
            batch_size=None,
            sampler=_From(self.step, self.config.steps),
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
            if self.step % self.config.report_every == 0 and self.first:
                self._report(sums)
                sums = {}
            if now - saved > self.config.save_every_s and self.first:
                self.save()
                saved = now
                if on_save is not None and self.step - validated >= self.config.validate_every:
                    validated = self.step
                    on_save(self)
        if self.first:
            self.save()
            if on_save is not None:
                on_save(self)

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step on one batch; returns the weighted losses and the gradient's norm.

        Raises:
            TrainingError: a loss or a gradient is no number; no weight has changed then.
        """
        losses = self.backward(batch)
        self._share_gradients()
        return losses | {"norm": self.update(len(batch.images) * self.processes)}

    def backward(self, batch: Batch) -> dict[str, float]:
        """Compute the gradients of one batch; returns the weighted losses.

        Raises:
            TrainingError: a loss is no number.
        """
        self.model.train()
        if self.config.freeze_norms:
            for norm in self._norms:
                norm.eval()
        asked = self.prompter(self.model, batch.to(self.device), self.step)
        with torch.set_grad_enabled(asked.teaches_sight):
            seen = self.model.encode_image(asked.batch.images, asked.batch.sizes)
        outputs = self.model.head(seen, asked.prompts)
        apart = self.step < self.config.heads_first
        losses = self.criterion(self.model, seen, outputs, asked.batch, asked.targets, apart=apart)
        total = torch.stack(list(losses.values())).sum()
        self._refuse_no_number("loss", total)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        said = "s/" if asked.targets.names is None else ""
        return {f"{said}{k}": v.item() for k, v in losses.items()}

    def update(self, images: int) -> float:
        """Take the optimizer's step; returns the gradient's norm before it was clipped.

        Args:
            images: pictures that the gradients come from, in all processes.

        Raises:
            TrainingError: a gradient is no number.
        """
        for group in self.optimizer.param_groups:
            alone = group["head"] and self.step < self.config.heads_first
            group["lr"] = HEAD_RATE if alone else self.rate(self.step) * group["scale"]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._refuse_no_number("gradient", norm)
        self.optimizer.step()
        self.step += 1
        self.images += images
        self._average()
        return float(norm)

    def _refuse_no_number(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"the {what} is {value.item()} at step {self.step}; lower the learning rate, and"
                f" go on from the last state in {self.folder}"
            )

    def _share_gradients(self) -> None:
        """Average gradients over all processes; a weight that a step did not use counts as zero."""
        if not distributed.is_initialized():
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        mine = self.model.state_dict()
        floats = [k for k, v in mine.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.ema[k] for k in floats], [mine[k] for k in floats], 1 - decay)

    def _report(self, sums: dict[str, list[float]]) -> None:
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
        self.say(f"step {self.step}/{self.config.steps}: loss {total:.3f}, {self.images} pictures")

    def log(self, line: Mapping[str, float | str]) -> None:
        """Append a line of numbers to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(dict(line)) + "\n")

    def save(self) -> None:
        """Write the whole state; an interrupted write leaves the last one."""
        state = {
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "memory": self.prompter.state(),
            "counts": {"step": self.step, "images": self.images, "seconds": self.seconds},
        }
        part = self.folder / "state.part"
        torch.save(state, part)
        part.replace(self.folder / "state.pt")

    def load(self) -> bool:
        """Take up the last state of the folder; False where there is none.

        Raises:
            TrainingError: there is one, but it is damaged or of another run.
        """
        path = self.folder / "state.pt"
        if not path.is_file():
            return False
        try:
            self._take(torch.load(path, weights_only=True, map_location=self.device))
        except (OSError, EOFError, pickle.UnpicklingError, LookupError, RuntimeError) as error:
            first = str(error).partition("\n")[0]
            raise TrainingError(
                f"{path} is damaged or of another run; remove it to begin anew: {first}"
            ) from error
        except ValueError as error:
            raise TrainingError(f"{path} is of a run with other data sets: {error}") from error
        return True

    def _take(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        if "memory" in state:  # states from before there was one have none to take up
            self.prompter.load(state["memory"])
        counts = state["counts"]
        self.step, self.images, self.seconds = counts["step"], counts["images"], counts["seconds"]
