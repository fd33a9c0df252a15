"""The training loop: resumable to the step, one seed one result."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from ape_model.ape import PromptFeatures
from ape_model.training.criterion import Criterion, Targets
from ape_model.training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ape_model.nano import Nano
    from ape_model.training.batch import Batch
    from ape_model.training.prompt_bank import PromptBank

__all__ = ["LoopConfig", "Trainer"]


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How long and how fast."""

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: int = 250
    decay_from: float = 0.45
    """Part of the run after which the learning rate falls, 0..1."""
    clip: float = 5.0
    ema: float = 0.998
    layer_decay: float = 1.0
    """Learning rate of a backbone block over that of the next one; the stem comes first."""
    strangers: int = 96
    seed: int = 0
    save_every_s: float = 120.0
    report_every: int = 50
    workers: int = 1


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
        bank: embedded prompts.
        config: the recipe.
        folder: where states and the log go.
        say: takes progress lines.
    """

    def __init__(
        self,
        model: Nano,
        bank: PromptBank,
        config: LoopConfig,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        torch.manual_seed(config.seed)
        self.say = say
        self.device = next(model.parameters()).device
        self.model, self.bank, self.config, self.folder = model, bank, config, folder
        self.criterion = Criterion(model.config.hidden, model.config.text_width).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.processes = distributed.get_world_size() if distributed.is_initialized() else 1
        self.first = not distributed.is_initialized() or distributed.get_rank() == 0
        folder.mkdir(parents=True, exist_ok=True)

    def _groups(self) -> list[dict[str, Any]]:
        """Weights decay; norms, biases and gates do not; sampling offsets learn slowly."""
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, p in [*self.model.named_parameters(), *self.criterion.named_parameters()]:
            groups.setdefault((p.ndim >= 2, self._scale(name)), []).append(p)
        decay = self.config.weight_decay
        return [
            {"params": ps, "weight_decay": decay if wide else 0.0, "scale": scale}
            for (wide, scale), ps in groups.items()
        ]

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
        """Train until the last step; states are written as time passes and at the end."""
        loader = DataLoader(
            data,
            batch_size=None,
            sampler=_From(self.step, self.config.steps),
            num_workers=self.config.workers,
            prefetch_factor=4 if self.config.workers else None,
        )
        saved = began = time.monotonic()
        sums: dict[str, list[float]] = {}
        for batch in loader:
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
                if on_save is not None:
                    on_save(self)
        if self.first:
            self.save()
            if on_save is not None:
                on_save(self)

    def advance(self, batch: Batch) -> dict[str, float]:
        """One step on one batch; returns the weighted losses."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step) * group["scale"]
        batch = batch.to(self.device)
        features, targets = self._prompts(batch)
        # Sentences say nothing new about how things look: they train what stands on the backbone.
        with torch.set_grad_enabled(targets.names is not None):
            seen = self.model.encode_image(batch.images)
        outputs = self.model.head(seen, features)
        losses = self.criterion(self.model, outputs, batch, targets)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss is {total.item()} at step {self.step}; lower the learning rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._share_gradients()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        self.images += len(batch.images) * self.processes
        self._average()
        said = "s/" if targets.names is None else ""
        return {f"{said}{k}": v.item() for k, v in losses.items()} | {"norm": float(norm)}

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

    def _prompts(self, batch: Batch) -> tuple[PromptFeatures, Targets]:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        if not any(batch.sentences):
            vectors, truth = self.bank.draw(batch.classes, self.config.strangers, generator)
            names = self.bank.names.to(self.device)
            prompts = self.model.vocabulary(vectors.to(self.device))
            return prompts, Targets(truth.to(self.device), names)
        longest = max(len(s) for s in batch.sentences)
        rows = [[s[k % len(s)] for k in range(longest)] for s in batch.sentences]
        flat = [text for row in rows for text, _ in row]
        vectors = self.bank.encode([t.casefold() for t in flat]).view(len(rows), longest, -1)
        meant = torch.tensor([[region for _, region in row] for row in rows])
        regions = torch.arange(batch.boxes.shape[1])
        truth = (meant[:, None] == regions[:, None]).float()  # (B, G, L)
        prompts = PromptFeatures(fusion=vectors.to(self.device), classes=None)
        return prompts, Targets(truth.to(self.device), None)

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
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        total = sum(sum(v) / len(v) for k, v in sums.items() if k != "norm")
        self.say(f"step {self.step}/{self.config.steps}: loss {total:.3f}, {self.images} pictures")

    def save(self) -> None:
        """Write the whole state; an interrupted write leaves the last one."""
        state = {
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "counts": {"step": self.step, "images": self.images, "seconds": self.seconds},
        }
        part = self.folder / "state.part"
        torch.save(state, part)
        part.replace(self.folder / "state.pt")

    def load(self) -> bool:
        """Take up the last state of the folder; False where there is none."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        counts = state["counts"]
        self.step, self.images, self.seconds = counts["step"], counts["images"], counts["seconds"]
        return True
