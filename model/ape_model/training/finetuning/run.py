"""A whole fine-tuning run: what is known is measured, what is new is learnt, both are reported."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from ape_model.config import NANO, PRESETS
from ape_model.loading import build_network, sizes_of
from ape_model.training.checkpointing import checkpoint_layers
from ape_model.training.data.held_back import split, with_classes_of
from ape_model.training.engine import Engine, Learner
from ape_model.training.finetuning.budget import check_budget, estimate
from ape_model.training.finetuning.config import read_config
from ape_model.training.finetuning.dataset import TuneBatches
from ape_model.training.finetuning.export import export_tuned
from ape_model.training.finetuning.features import FeatureStore
from ape_model.training.finetuning.mode import Mode
from ape_model.training.finetuning.modes import TunedWeights, make_optimizer, schedule
from ape_model.training.finetuning.scores import OldWords, score
from ape_model.training.finetuning.step import TuneStep
from ape_model.training.finetuning.words import find_words
from ape_model.training.settings import EngineConfig
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import load_weights
from ape_stream.datasets.read import read_instances
from ape_stream.devices import parse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Example
    from ape_model.training.finetuning.words import TuneWords
    from ape_model.weights.registry import ModelFiles
    from ape_stream.datasets.instances import InstanceData

__all__ = ["BANK_FILE", "FineTuneOptions", "fine_tune"]

BANK_FILE: Final = "prompts.safetensors"
"""Name of the bank in a run's folder."""
_SCORED_IMAGES: Final = 100
"""Most images of a score."""
_GIGA: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """The options of `ape-stream train --mode`."""

    init: str
    """Model to start from."""
    data: Path
    """A COCO file of instances."""
    out: Path
    """Folder for states, log and result."""
    mode: Mode
    """What is learnt."""
    config: Path | None = None
    """A TOML file of settings; None: the defaults."""
    images: Path | None = None
    """Folder of the images of `data`; None: that of the file."""
    validation: Path | None = None
    """COCO file that the score is taken on; None: a part of `data` is held back."""
    old_data: Path | None = None
    """COCO file of what the model knew before, to measure what it forgets; None: old words are
    asked for in the images of the score."""
    bank: Path | None = None
    """File of prompt embeddings; None: the cache."""
    memory: int | None = None
    """Most bytes that the run may need; None: what is free."""
    steps: int | None = None
    """Updates; None: those of the settings."""
    seed: int | None = None
    """Seed; None: that of the settings."""
    device: str = "auto"
    """Device of the network: auto, cpu or cuda."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A set of images that is scored before and after."""

    label: str
    words: TuneWords
    things: int
    examples: Sequence[Example]


class _Run:
    """One run; its parts are made in the order in which they are reported."""

    def __init__(self, options: FineTuneOptions, report: Callable[[str], None]) -> None:
        self.options, self.report = options, report
        self.config = read_config(options.config, steps=options.steps, seed=options.seed)
        self.device = parse_device(options.device)
        self.files = find_model(options.init)
        self.sizes = sizes_of(self.files)
        data = read_instances(options.data, options.images)
        report(f"{options.data}: {len(data.images)} images, left out: {data.skips}")
        self.learnt_from, self.held_back = self._parts(data)
        self.words = find_words(data, self.files, options.bank)
        self.updates = self.config.updates(len(self.learnt_from.images))
        self.rank = int(os.environ.get("RANK", "0"))
        self.processes = int(os.environ.get("WORLD_SIZE", "1"))

    def _parts(self, data: InstanceData) -> tuple[InstanceData, InstanceData]:
        if self.options.validation is None:
            kept, aside = split(data, self.config.held_back, self.config.seed)
            whole = " (too few to hold any back)" if kept is aside else ""
            self.report(
                f"{len(kept.images)} images to learn from, {len(aside.images)} for the score{whole}"
            )
            return kept, aside
        path = self.options.validation
        return data, with_classes_of(data, read_instances(path), path)

    def run(self) -> Path:
        """Measure, learn, measure again, and write the result."""
        config, mode = self.config, self.options.mode
        self._check_memory()
        network = _load(self.files).to(self.device)
        self.words = self.words.to(self.device)
        scored = self._scored()
        old = OldWords(self.words.old.to(self.device), scored[0].examples, self.sizes)
        weights = TunedWeights(network, mode, config)
        if mode in (Mode.LORA, Mode.FULL) and config.checkpointing:
            checkpoint_layers(network, backbone=mode is Mode.FULL, encoder=True)
        parameters = dict(weights.parameters)
        if mode is Mode.PROMPT:
            parameters = {"vectors": self.words.vectors}
        engine = self._engine(network, parameters)
        # The first measurement is of the model as it came, also where a run goes on.
        before = [self._score(network, one) for one in scored]
        old_before = old.measure(network) if len(self.words.old) else None
        for one, values in zip(scored, before, strict=True):
            self._report_scores(f"before, {one.label}", values, engine)
        if engine.load():
            self.report(f"resuming at image {engine.step}")
        fixed = mode in (Mode.PROMPT, Mode.HEAD)
        engine.run(
            TuneBatches(
                self.learnt_from,
                config,
                self.sizes,
                steps=engine.config.steps,
                views=config.views if fixed else None,
                rank=self.rank,
                processes=self.processes,
            )
        )
        if not engine.is_main_process:
            return self.options.out
        self._after(network, engine, scored, before)
        if old_before is not None:
            old_after = old.measure(network)
            self.report(str(old.compare(old_before, old_after, self._threshold)))
        return self._write(weights, engine)

    @property
    def _threshold(self) -> float:
        ape = NANO.ape if self.files.variant == NANO.ape.name else PRESETS[self.files.variant]
        return ape.score_threshold

    def _check_memory(self) -> None:
        with torch.device("meta"):  # shapes without memory
            network = build_network(self.files)
            weights = sum(p.numel() for p in network.parameters())
            tuned = TunedWeights(network, self.options.mode, self.config).parameters
        learnt = sum(p.numel() for p in tuned.values())
        if self.options.mode is Mode.PROMPT:
            learnt = self.words.vectors.numel()
        budget = estimate(
            self.sizes,
            self.options.mode,
            weights=weights,
            learnt=learnt,
            prompts=len(self.words.texts) + self.config.negative_words,
            checkpointing=self.config.checkpointing,
        )
        self.report(f"mode {self.options.mode}: {learnt:,} of {weights:,} weights are learnt")
        self.report(str(budget))
        check_budget(budget, self.device, self.options.memory)

    def _engine(self, network: Ape, parameters: dict[str, torch.nn.Parameter]) -> Engine:
        config, mode = self.config, self.options.mode
        step = TuneStep(network, self.words, mode, config, self._store())
        depth = network.config.backbone.depth
        learner = Learner(
            parameters,
            make_optimizer(parameters, depth, mode, config),
            step,
            schedule(config, self.updates),
        )
        return Engine(
            learner,
            EngineConfig(
                steps=self.updates * config.batch,
                accumulate=config.batch,
                clip=config.clip,
                precision=config.precision,
                seed=config.seed + self.rank,
                workers=config.workers,
                save_every_s=config.save_every_s,
                report_every=config.report_every,
            ),
            self.options.out,
            self.report,
        )

    def _store(self) -> FeatureStore | None:
        if self.options.mode not in (Mode.PROMPT, Mode.HEAD):
            return None
        state = self.files.vision.stat()
        space = f"{self.files.vision}/{state.st_size}/{state.st_mtime_ns}/{self.sizes}"
        mode = self.options.mode
        digest = hashlib.sha256(f"{space}/{mode}".encode()).hexdigest()
        most = int(self.config.features_gb * _GIGA)
        return FeatureStore(self.options.out / "features", digest, most)

    def _scored(self) -> list[_Scored]:
        """The images of the score, and those of what the model knew before."""
        label = "validation" if self.options.validation else "held-back images"
        if self.learnt_from is self.held_back:
            label = "images that are learnt"
        sets = [self._examples(label, self.held_back, self.words)]
        if self.options.old_data is not None:
            data = read_instances(self.options.old_data)
            words = find_words(data, self.files, self.options.bank).to(self.device)
            sets.append(self._examples(f"old data {self.options.old_data.name}", data, words))
        return sets

    def _examples(self, label: str, data: InstanceData, words: TuneWords) -> _Scored:
        images = TuneBatches(data, self.config, self.sizes, steps=1)
        count = min(_SCORED_IMAGES, len(images.usable))
        return _Scored(
            label, words, data.things, [images.plain(k, images.side) for k in range(count)]
        )

    def _score(self, network: Ape, one: _Scored) -> dict[str, float]:
        return score(network, one.words.main_vectors, one.things, one.examples, self.sizes)

    def _report_scores(self, when: str, values: dict[str, float], engine: Engine) -> None:
        listed = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        self.report(f"{when}: {listed}")
        engine.log({"step": engine.step, "score": when, **values})

    def _after(
        self,
        network: Ape,
        engine: Engine,
        scored: Sequence[_Scored],
        before: Sequence[dict[str, float]],
    ) -> None:
        for one, was in zip(scored, before, strict=True):
            now = self._score(network, one)
            self._report_scores(f"after, {one.label}", now, engine)
            worse = [key for key in now if key.endswith("ap50") and now[key] < was[key]]
            if worse:
                self.report(f"{one.label}: {', '.join(worse)} fell")

    def _write(self, weights: TunedWeights, engine: Engine) -> Path:
        out, bank = self.options.out, self.words.as_bank()
        learnt = weights.finish()
        model = self.options.init
        if self.options.mode is not Mode.PROMPT:
            facts = {
                "tuned": self.options.mode,
                "tuned_from": self.files.name,
                "seed": self.config.seed,
                "steps": self.updates,
                "images": engine.images,
            }
            digest = export_tuned(out, weights.network, learnt, self.files, self.words.texts, facts)
            bank = replace(bank, space=replace(bank.space, tower=digest))
            model = str(out)
        bank.save(out / BANK_FILE)
        size = (out / BANK_FILE).stat().st_size
        self.report(f"wrote {out / BANK_FILE}, {size:,} bytes: words of this run as vectors")
        self.report(
            f'use it as {{ plugin = "ape", model = "{model}", bank = "{out / BANK_FILE}" }}'
        )
        return out


def fine_tune(options: FineTuneOptions, report: Callable[[str], None]) -> Path:
    """Fine-tune a model, from the last state in the folder where there is one.

    Args:
        options: Model, data, mode and folders.
        report: Called with lines of progress; the score before anything is learnt comes first.

    Returns:
        The folder of the result.

    Raises:
        ModelError: model, data, bank or settings cannot be used, the run does not fit into memory,
            or a loss is NaN or infinite.
    """
    return _Run(options, report).run()


def _load(files: ModelFiles) -> Ape:
    """The network with its norms not folded, so that it can be written again."""
    network = build_network(files)
    load_weights(network, files.vision)
    return network
