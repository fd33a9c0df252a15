"""Frames in, Instances out: the bridge between the network and the stream.

A frame goes through `make_batch`, `encode_image` and `find_regions`; then its masks are cut to
their extent, parts of stuff are merged and duplicates are dropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ape_cuda_ops import backend_in_use
from ape_cuda_ops.ops import mask_pack
from ape_model.inference.argmax import argmax_upsampled
from ape_model.inference.class_maps import RULES, all_queries, paint_classes, paint_segments
from ape_model.inference.cuda_graphs import CudaGraphRunner
from ape_model.inference.detect import PromptPass, find_regions
from ape_model.inference.device_check import graphs_work, uploader
from ape_model.inference.mask_products import MaskProducts
from ape_model.inference.preprocess import group_by_canvas, make_batch
from ape_model.inference.ranking import rank_regions
from ape_model.inference.selection import initial_capacity
from ape_model.inference.threads import leave_a_core
from ape_model.inference.transfer import to_host
from ape_model.loading import load_network, open_embedder
from ape_model.queries import facts_of, no_name, queries_of
from ape_model.text.embedder import VOCABULARY, classify
from ape_model.weights.registry import DEFAULT, drawn_stuff, find_model
from ape_stream import masks
from ape_stream.devices import parse_device, parse_dtype
from ape_stream.errors import ConfigError
from ape_stream.files import sampled_digest
from ape_stream.stats import DeviceMemory
from ape_stream.types import Instances, Maps, SemanticMap
from ape_stream.values.texts import clean_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.inference.class_maps import ClassMaps, Rule
    from ape_model.inference.detect import Regions
    from ape_model.network.ape import ImageFeatures, RawOutputs
    from ape_stream.types import Frame, MapKind, PromptSet
    from ape_stream.values.queries import FrameQueries, NetworkFacts

__all__ = ["ApePerceiver"]

MIN_CANVAS = 32
"""Pixels: every network here reduces an image at least this far, to one position."""


class ApePerceiver:
    """APE as a perceiver.

    On a CPU, nano leaves one core to decoding and writing, unless `OMP_NUM_THREADS` is set.

    Args:
        model: "nano", "street", a model that was imported or pulled, or the path of one.
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        device: Where the network runs: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        canvas: Long side of the image that the network sees, pixels; None for the model's own
            (nano: 256, for wide and tall images up to 384 at no more pixels than those of 4:3).
        official: Classify prompts as the official code does: a space in one makes all sentences.
        bank: File of prompt embeddings made by `ape-stream prompts embed`.
        dtype: Arithmetic of the network: "float32", or "bfloat16" or "float16", which are faster
            where the hardware has them and round (`ape-stream bench model` measures how much).
        per_prompt: Most regions of one prompt in one frame.
        map_rule: How queries paint semantic maps: "paper", "sum" or "max" (docs/how-to/maps.md).
        map_threshold: Lowest score of a query whose mask gives pixels of a semantic map to prompts,
            0..1; 0 gives every pixel to one, None takes the thresholds of the prompts.

    Raises:
        ModelError: the model is not here, cannot be read, or the device is not.
        UsageError: a number is out of its range.
    """

    def __init__(  # noqa: PLR0913 (a plugin's options are its keyword arguments)
        self,
        *,
        model: str = DEFAULT,
        threshold: float | None = None,
        device: str = "auto",
        canvas: int | None = None,
        official: bool = False,
        bank: str | None = None,
        dtype: str = "float32",
        per_prompt: int = 100,
        map_rule: Rule = "paper",
        map_threshold: float | None = None,
    ) -> None:
        _check_ranges(threshold, canvas, per_prompt)
        _check_map_options(map_rule, map_threshold)
        self._files = files = find_model(model)
        self.device = parse_device(device)
        self._dtype = parse_dtype(dtype)
        backend_in_use(self.device)  # compiled here, not with the first image that a page waits for
        self.network = load_network(files, self.device).to(self._dtype)
        path = None if bank is None else Path(bank)
        self._weights = self.weights(model=model, bank=bank)
        self._embedder = open_embedder(files, self.device, bank=path)
        on_gpu = self.device.type == "cuda"
        graphs = on_gpu and graphs_work(self.device)
        self._runner = CudaGraphRunner(self.network) if graphs else self.network
        self._upload = uploader(self.device) if on_gpu else None
        self._capacity = initial_capacity(self.device)
        # A CPU upsamples the crop of each mask; a GPU whole masks, which it sends as bits.
        self._packs_masks = on_gpu
        config = self.network.config
        if canvas is not None:
            config = replace(config, canvas=canvas, wide_area=None)
        self._config = config
        self._spares_a_core = config.spare_core and not on_gpu
        self._threshold = config.score_threshold if threshold is None else threshold
        self._vocabulary = files.vocabulary | self._embedder.names
        self._known_stuff = files.stuff | (drawn_stuff() if config.knows_drawn_stuff else set())
        self._official = official
        self._per_prompt = per_prompt
        self._map_rule = map_rule
        self._map_threshold = map_threshold
        self._no_name = no_name(self.network)
        self._passes: list[PromptPass] = []
        self._stuff = np.zeros(0, np.bool_)

    @staticmethod
    def weights(*, model: str = DEFAULT, bank: str | None = None, **_: Any) -> list[Path]:
        """The files that a perceiver with these options reads; see `KnowsWeights`."""
        files = find_model(model)
        named = (files.vision, files.text, None if bank is None else Path(bank))
        return [path for path in named if path is not None]

    @cached_property
    def facts(self) -> NetworkFacts:
        """What scores the queries of `Maps.queries` later; see `GivesQueries`."""
        return facts_of(
            self._files,
            self.network,
            self._embedder,
            config=self._config,
            weights=sampled_digest(self._weights),
            threshold=self._threshold,
            per_prompt=self._per_prompt,
            stuff=self._known_stuff,
        )

    @staticmethod
    def embed_texts(texts: Sequence[str], *, model: str, dtype: str) -> tuple[NDArray[Any], str]:
        """Encode texts with a model's text tower alone; see `EmbedsTexts`."""
        files = find_model(model)
        # In 16 bits it runs on a GPU alone, as when the index was made.
        device = torch.device("cpu") if dtype == "float32" else parse_device("auto")
        embedder = open_embedder(files, device)
        return embedder.embed(texts).numpy(), embedder.space.tower

    @property
    def threshold(self) -> float:
        """Lowest score kept for prompts without a threshold of their own, 0..1."""
        return self._threshold

    def prepare(self, prompts: PromptSet) -> None:
        """Take these prompts from the next frame on; only new ones are encoded.

        Raises:
            PromptError: a prompt cannot be encoded with what is here.
        """
        if self._spares_a_core:
            leave_a_core()
        kinds = classify(
            prompts.texts,
            [prompt.kind for prompt in prompts],
            self._vocabulary,
            official=self._official,
        )
        embeddings = self._embedder.embed(prompts.texts).to(self.device, self._dtype)  # (P, Dl)
        thresholds = torch.tensor(
            [self._threshold if p.threshold is None else p.threshold for p in prompts]
        )
        self._stuff = np.array(
            [prompt.stuff or clean_text(prompt.text) in self._known_stuff for prompt in prompts]
        )
        self._passes = []
        # One pass of the head for names and one for sentences, in the order of their first prompt.
        for kind in dict.fromkeys(kinds):
            ids = torch.tensor([p for p, own in enumerate(kinds) if own == kind])
            self._passes.append(self._make_pass(kind, ids, embeddings[ids], thresholds[ids]))

    def _make_pass(
        self, kind: str, ids: Tensor, embeddings: Tensor, thresholds: Tensor
    ) -> PromptPass:
        """The L prompts of one kind, which go through the head together."""
        encode = self.network.vocabulary if kind == VOCABULARY else self.network.sentences
        return PromptPass(
            prompts=encode(embeddings),
            ids=ids,
            thresholds=thresholds.to(self.device),
            stuff=torch.from_numpy(self._stuff)[ids],
        )

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """Find the prepared prompts in each frame; see `perceive_with_maps`."""
        return [found for found, _ in self.perceive_with_maps(frames, frozenset())]

    @torch.inference_mode()
    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        """Find the prepared prompts in each frame, and give its pixels to them.

        Frames that are padded to the same shape share one call of the network; what is found in a
        frame does not depend on the others.
        """
        found: dict[int, tuple[Instances, Maps]] = {}
        for group in group_by_canvas([frame.image for frame in frames], self._config):
            alike = self._perceive_alike([frames[i] for i in group], wanted)
            found |= zip(group, alike, strict=True)
        return [found[index] for index in range(len(frames))]

    def _perceive_alike(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        """Frames of one padded shape in one call of the network."""
        images, sizes = make_batch(
            [frame.image for frame in frames], self._config, self._dtype, self._upload
        )
        features = self._runner.encode_image(images, sizes)
        heads = [self._runner.head(features, one.prompts) for one in self._passes]
        products = MaskProducts(self._runner) if "queries" in wanted else None
        found = find_regions(
            products or self._runner,
            features,
            self._passes,
            heads,
            per_prompt=self._per_prompt,
            capacity=self._capacity,
            mask_margin=self._config.mask_margin,
        )
        on_device = [
            self._on_device(regions, features, heads, image, frame.size, wanted - {"queries"})
            for image, (regions, frame) in enumerate(zip(found, frames, strict=True))
        ]
        copies = iter(to_host([tensor for parts in on_device for tensor in parts.values()]))
        on_host = [{name: next(copies).numpy() for name in parts} for parts in on_device]
        queries: Sequence[FrameQueries | None] = [None] * len(frames)
        if products is not None:
            passes = [one.prompts for one in self._passes]
            queries = queries_of(self.network, products, features, passes, heads, self.facts)
        return [
            (
                self._instances(regions, parts["masks"], frame.size),
                replace(self._maps(parts, regions.filled, frame.size), queries=own),
            )
            for regions, parts, frame, own in zip(found, on_host, frames, queries, strict=True)
        ]

    @torch.inference_mode()
    def queries(self, frame: Frame) -> FrameQueries:
        """The queries of a frame, under any prompts; see `GivesQueries`."""
        if self._spares_a_core:
            leave_a_core()
        images, sizes = make_batch([frame.image], self._config, self._dtype, self._upload)
        features = self._runner.encode_image(images, sizes)
        given = self.network, MaskProducts(self._runner), features, [self._no_name]
        return queries_of(*given, [self._runner.head(features, self._no_name)], self.facts)[0]

    @torch.inference_mode()
    def rank(self, frames: Sequence[Frame], top_k: int) -> list[Instances]:
        """The best regions of each frame over all prompts; see `RanksRegions`."""
        return [self._ranked(frame, top_k) for frame in frames]

    def _ranked(self, frame: Frame, top_k: int) -> Instances:
        images, sizes = make_batch([frame.image], self._config, self._dtype, self._upload)
        features = self._runner.encode_image(images, sizes)
        heads = [self._runner.head(features, one.prompts) for one in self._passes]
        regions = rank_regions(self._runner, features, self._passes, heads, top_k)
        logits = regions.mask_logits.float().cpu().numpy()
        height, width = frame.size
        scale = torch.tensor([width, height, width, height])
        return Instances(
            boxes=(regions.boxes.float().cpu() * scale).numpy().astype(np.float32),
            scores=regions.scores.float().cpu().numpy().astype(np.float32),
            prompt_ids=regions.prompts.cpu().numpy().astype(np.int64),
            masks=tuple(masks.from_logits(one, frame.size, regions.filled) for one in logits),
            size=frame.size,
        )

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the GPU, as counted by torch's allocator; None on a CPU.

        The driver is not asked: a call to it from another thread would break a graph's capture.
        """
        if self.device.type != "cuda":
            return None
        return DeviceMemory(
            device=str(self.device),
            allocated=torch.cuda.memory_allocated(self.device),
            reserved=torch.cuda.memory_reserved(self.device),
            total=torch.cuda.get_device_properties(self.device).total_memory,
        )

    def _on_device(
        self,
        regions: Regions,
        features: ImageFeatures,
        heads: Sequence[RawOutputs],
        image: int,
        size: tuple[int, int],
        wanted: frozenset[MapKind],
    ) -> dict[str, Tensor]:
        """What becomes masks and maps of one frame of (height, width), by name.

        `masks` are bits of the frame, as `mask_pack` makes them, or (K, h, w) float32 logits.
        """
        logits = regions.mask_logits.float()
        packed = self._packs_masks
        parts = {"masks": mask_pack(logits, size, regions.filled) if packed else logits}
        if not wanted:
            return parts
        queries = all_queries(
            self._runner, features, self._passes, heads, image, self._config.mask_margin
        )
        if "semantic" in wanted:
            maps = paint_classes(queries, self._map_rule, self._map_threshold)
            parts |= {
                "scores": maps.values,
                **self._winners(maps, regions.filled, size, "semantic"),
            }
        if "panoptic" in wanted:
            found = paint_segments(queries, self._config.panoptic_mask_score)
            parts |= {"prompts": found.prompts, "sureness": found.scores, "holds": found.holds}
            parts |= self._winners(found.maps, regions.filled, size, "panoptic")
        return parts

    def _winners(
        self, maps: ClassMaps, filled: tuple[float, float], size: tuple[int, int], name: str
    ) -> dict[str, Tensor]:
        """The owner of every pixel, or on a CPU, which leaves most pixels out, what decides it."""
        if self._packs_masks:
            return {name: argmax_upsampled(maps.values, maps.gates, size, filled)}
        return {name: maps.values, f"{name} gates": maps.gates}

    def _maps(
        self, parts: dict[str, NDArray[Any]], filled: tuple[float, float], size: tuple[int, int]
    ) -> Maps:
        """The maps of one frame of (height, width)."""

        def winners(name: str) -> NDArray[np.uint16]:
            if self._packs_masks:
                return parts[name].astype(np.uint16)
            return masks.argmax_upsampled(parts[name], parts[f"{name} gates"], size, filled)

        semantic = panoptic = None
        if "semantic" in parts:
            semantic = SemanticMap(winners("semantic"), parts["scores"], filled)
        if "panoptic" in parts:
            regions = parts["prompts"], parts["sureness"], parts["holds"]
            panoptic = masks.join_segments(winners("panoptic"), *regions, self._stuff)
        return Maps(semantic, panoptic)

    def _instances(
        self, regions: Regions, mask_data: NDArray[Any], size: tuple[int, int]
    ) -> Instances:
        """Regions of one frame of (height, width), each mask cut to its extent."""
        if self._packs_masks:
            cropped = [masks.from_bits(words, size[1]) for words in mask_data]
        else:
            cropped = [masks.from_logits(logits, size, regions.filled) for logits in mask_data]
        # A mask without a pixel is no region, however sure its score is.
        kept = [index for index, mask in enumerate(cropped) if mask.bitmap.size]
        kept_masks = tuple(cropped[index] for index in kept)
        found = Instances(
            boxes=masks.boxes(kept_masks),
            scores=regions.scores.float().numpy()[kept].astype(np.float32),
            prompt_ids=regions.prompts.numpy()[kept].astype(np.int64),
            masks=kept_masks,
            size=size,
        )
        return masks.suppress_duplicates(masks.merge_stuff(found, self._stuff))


def _check_map_options(rule: str, threshold: float | None) -> None:
    if rule not in RULES:
        raise ConfigError(f"map_rule is one of {', '.join(RULES)}, not {rule!r}")
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"map_threshold is {threshold}, not within 0..1")


def _check_ranges(threshold: float | None, canvas: int | None, per_prompt: int) -> None:
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold is {threshold}, not within 0..1")
    if canvas is not None and canvas < MIN_CANVAS:
        raise ConfigError(f"canvas is {canvas} pixels: give at least {MIN_CANVAS}")
    if per_prompt < 1:
        raise ConfigError(f"per_prompt is {per_prompt}: give at least 1 region")
