"""Frames in, Instances out: where the network meets the stream.

The only file here that imports `ape_stream`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from ape_cuda_ops.ops import mask_pack
from ape_model.errors import ModelError as NetworkError
from ape_model.errors import PromptTextError
from ape_model.inference.cuda_graphs import FrameGraph
from ape_model.inference.detect import Pass, find_regions
from ape_model.inference.device_check import graphs_work, uploader
from ape_model.inference.preprocess import group_by_canvas, prepare
from ape_model.inference.selection import room_on
from ape_model.inference.threads import leave_a_core
from ape_model.inference.transfer import to_device, to_host
from ape_model.loading import load_network, open_embedder, parse_device, parse_dtype
from ape_model.text.clip_tokenizer import clean_text
from ape_model.text.embedder import PromptKind, classify
from ape_model.weights.registry import BUILT_IN, find_model
from ape_model.world.words import load_vocabulary
from ape_stream import masks
from ape_stream.errors import ModelError, PromptError
from ape_stream.stats import DeviceMemory
from ape_stream.types import Instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.inference.detect import Regions
    from ape_stream.types import Frame, PromptSet

__all__ = ["ApePerceiver"]

NANO_THRESHOLD: Final = 0.5
OFFICIAL_THRESHOLD: Final = 0.3
"""Scores kept where nobody says otherwise; nano's quality focal loss asks for the higher one."""
NANO_MARGIN: Final = 0.08
"""Nano learns masks inside boxes only: beyond the box grown by this share there is no mask."""
DOUBLE: Final = 0.8
"""Part of the smaller of two masks in the other above which both are the same thing."""
OUTSIDE: Final = -20.0
"""Mask logit of what is cut off; low enough that no upsampled pixel next to it is inside."""


class ApePerceiver:
    """APE as a perceiver.

    On a CPU, nano leaves one core to decoding and writing (`OMP_NUM_THREADS` says otherwise).

    Args:
        model: "nano", a model that was imported or pulled, or the path of one.
        threshold: lowest score kept for prompts without one of their own, 0..1.
        device: where the network runs: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        canvas: long edge of the picture that the network sees, pixels; None for the model's own.
        official: class prompts as the official code does: one with a space makes all sentences.
        bank: file of prompt embeddings made by `ape-stream prompts embed`.
        dtype: arithmetic of the network: "float32", or "bfloat16" or "float16", which are faster
            where the hardware has them and round (`ape-stream bench model` tells how much).
        per_prompt: most regions of one prompt in one frame.

    Raises:
        ModelError: the model is not here, cannot be read, or the device is not.
    """

    def __init__(
        self,
        *,
        model: str = BUILT_IN,
        threshold: float | None = None,
        device: str = "auto",
        canvas: int | None = None,
        official: bool = False,
        bank: str | None = None,
        dtype: str = "float32",
        per_prompt: int = 100,
    ) -> None:
        with _told_as_ours():
            files = find_model(model)
            self.device = parse_device(device)
            self._dtype = parse_dtype(dtype)
            self.network = load_network(files, self.device).to(self._dtype)
            path = None if bank is None else Path(bank)
            self._embedder = open_embedder(files, self.device, bank=path)
            on_gpu = self.device.type == "cuda"
            graphs = on_gpu and graphs_work(self.device)
            self._replayed = FrameGraph(self.network) if graphs else self.network
            self._upload = uploader(self.device) if on_gpu else None
        self._room = room_on(self.device)
        self._packs = on_gpu  # a CPU upsamples crops; a GPU whole masks, and sends their bits
        config = self.network.config
        self._config = config if canvas is None else replace(config, canvas=canvas)
        nano = files.variant == BUILT_IN
        self._leaves_a_core = nano and not on_gpu
        self._margin = NANO_MARGIN if nano else None
        usual = NANO_THRESHOLD if nano else OFFICIAL_THRESHOLD
        self._threshold = usual if threshold is None else threshold
        self._vocabulary = files.vocabulary
        self._known_stuff = files.stuff | (_drawn_stuff() if nano else frozenset())
        self._official = official
        self._per_prompt = per_prompt
        self._passes: list[Pass] = []
        self._stuff = np.zeros(0, np.bool_)

    def prepare(self, prompts: PromptSet) -> None:
        """Take these prompts from the next frame on; only new ones are encoded.

        Raises:
            PromptError: a prompt cannot be encoded with what is here.
        """
        if self._leaves_a_core:
            leave_a_core()
        given = [None if p.kind is None else PromptKind(p.kind.value) for p in prompts]
        with _told_as_ours():
            kinds = classify(prompts.texts, given, self._vocabulary, official=self._official)
            embedded = self._embedder.embed(prompts.texts).to(self.device, self._dtype)
        least = [self._threshold if p.threshold is None else p.threshold for p in prompts]
        self._passes = [
            self._pass(kind, kinds, embedded, torch.tensor(least)) for kind in dict.fromkeys(kinds)
        ]
        self._stuff = np.array(
            [prompt.stuff or clean_text(prompt.text) in self._known_stuff for prompt in prompts]
        )

    def _pass(
        self, kind: PromptKind, kinds: Sequence[PromptKind], embedded: Tensor, least: Tensor
    ) -> Pass:
        """The prompts of one kind: they go through the head together."""
        ids = torch.tensor([prompt for prompt, own in enumerate(kinds) if own is kind])
        vocabulary = kind is PromptKind.VOCABULARY
        features = self.network.vocabulary if vocabulary else self.network.sentences
        return Pass(features(embedded[ids]), ids, least[ids].to(self.device))

    @torch.inference_mode()
    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """Find the prepared prompts in each frame.

        Frames that are padded to the same shape share one call of the network; what is found in a
        frame does not depend on the others.
        """
        found: dict[int, Instances] = {}
        for group in group_by_canvas([frame.image for frame in frames], self._config):
            found |= zip(group, self._perceive_alike([frames[i] for i in group]), strict=True)
        return [found[index] for index in range(len(frames))]

    def _perceive_alike(self, frames: Sequence[Frame]) -> list[Instances]:
        """Frames of one padded shape in one call of the network."""
        images, sizes = prepare(
            [frame.image for frame in frames], self._config, self._dtype, self._upload
        )
        found = find_regions(
            self._replayed,
            self._replayed.encode_image(images, sizes),
            self._passes,
            per_prompt=self._per_prompt,
            room=self._room,
        )
        drawn = [
            self._drawn(regions, frame.size) for regions, frame in zip(found, frames, strict=True)
        ]
        return [
            self._instances(regions, maps.numpy(), frame.size)
            for regions, maps, frame in zip(found, to_host(drawn), frames, strict=True)
        ]

    def device_memory(self) -> DeviceMemory | None:
        """What the GPU holds, by the allocator's books; None on a CPU.

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

    def _drawn(self, regions: Regions, size: tuple[int, int]) -> Tensor:
        """(K, ...) masks of a frame of (height, width), still where the network is.

        Either bits of the frame, as `mask_pack` makes them, or (K, h, w) float32 logits.
        """
        logits, filled = regions.mask_logits.float(), _filled(regions)
        if self._margin is not None:
            things = to_device(torch.from_numpy(~self._stuff)[regions.prompts], logits.device)
            boxes = to_device(regions.boxes, logits.device)
            inside = _inside_boxes(logits, boxes, filled, self._margin)
            logits = torch.where(things[:, None, None], inside, logits)
        return mask_pack(logits, size, filled) if self._packs else logits

    def _instances(self, regions: Regions, drawn: NDArray[Any], size: tuple[int, int]) -> Instances:
        """Regions of one frame of (height, width), each mask cut to its extent."""
        if self._packs:
            cut = [masks.from_bits(words, size[1]) for words in drawn]
        else:
            cut = [masks.from_logits(logits, size, _filled(regions)) for logits in drawn]
        solid = [index for index, mask in enumerate(cut) if mask.bitmap.size]
        kept = tuple(cut[index] for index in solid)
        found = Instances(
            boxes=masks.boxes(kept),
            scores=regions.scores.float().numpy()[solid].astype(np.float32),
            prompt_ids=regions.prompts.numpy()[solid].astype(np.int64),
            masks=kept,
            size=size,
        )
        found = _stuff_united(found, self._stuff) if self._stuff.any() else found
        return _one_mask_each(found)


def _drawn_stuff() -> frozenset[str]:
    """Names in nano's world that can only mean stuff."""
    words = load_vocabulary()
    only_stuff = (p.text for p in words.prompts if min(p.class_ids) >= words.things)
    return frozenset(clean_text(text) for text in only_stuff)


def _filled(regions: Regions) -> tuple[float, float]:
    """Rows and columns of the mask logits that the frame covers."""
    height, width = regions.mask_logits.shape[-2:]
    return height * regions.extent[0], width * regions.extent[1]


def _inside_boxes(
    logits: Tensor, boxes: Tensor, filled: tuple[float, float], margin: float
) -> Tensor:
    """(K, H, W) mask logits without what lies outside (K, 4) boxes grown by a margin."""
    scale = boxes.new_tensor([filled[1], filled[0]])
    grown = margin * (boxes[:, 2:] - boxes[:, :2])
    low, high = (boxes[:, :2] - grown) * scale - 1, (boxes[:, 2:] + grown) * scale + 1
    x = torch.arange(logits.shape[2], device=boxes.device) + 0.5
    y = torch.arange(logits.shape[1], device=boxes.device) + 0.5
    inside_x = (x >= low[:, :1]) & (x <= high[:, :1])
    inside_y = (y >= low[:, 1:]) & (y <= high[:, 1:])
    return logits.masked_fill(~(inside_y[:, :, None] & inside_x[:, None]), OUTSIDE)


def _one_mask_each(found: Instances) -> Instances:
    """Drop weaker regions of a prompt that share their pixels with a stronger one.

    Two queries may draw one thing, or one the thing and the other a part of it, with boxes that
    overlap little enough to pass suppression; their masks tell. What is kept stays in the order of
    its score.
    """
    kept: list[int] = []
    for index in np.argsort(-found.scores, kind="stable").tolist():
        same = [k for k in kept if found.prompt_ids[k] == found.prompt_ids[index]]
        rivals = [found.masks[k] for k in same]
        if not same or masks.containment_matrix([found.masks[index]], rivals).max() <= DOUBLE:
            kept.append(index)
    return found if len(kept) == len(found) else found.select(np.array(kept, np.intp))


def _stuff_united(found: Instances, stuff: NDArray[np.bool_]) -> Instances:
    """Unite the regions of every stuff prompt: one sky, however many clouds divide it."""
    things = ~stuff[found.prompt_ids]
    parts = [found.select(things)]
    for prompt in np.unique(found.prompt_ids[~things]):
        regions = found.select(found.prompt_ids == prompt)
        dense = np.any([masks.paste(mask, found.size) for mask in regions.masks], axis=0)
        united = (masks.crop(dense),)
        parts.append(
            Instances(
                boxes=masks.boxes(united),
                scores=regions.scores.max(keepdims=True),
                prompt_ids=regions.prompt_ids[:1],
                masks=united,
                size=found.size,
            )
        )
    return Instances(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        prompt_ids=np.concatenate([part.prompt_ids for part in parts]),
        masks=tuple(mask for part in parts for mask in part.masks),
        size=found.size,
    )


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """Turn the network's errors into the stream's."""
    try:
        yield
    except PromptTextError as error:
        raise PromptError(str(error)) from error
    except NetworkError as error:
        raise ModelError(str(error)) from error
