"""Grounding DINO (Liu et al., arXiv 2303.05499), of transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ape_peers.images import IMAGENET_MEAN, IMAGENET_STD, normalised, short_edge
from ape_peers.places import model_folder
from ape_peers.pretrained import PretrainedPeer
from ape_peers.regions import Candidates, corners
from ape_stream.errors import PromptError
from ape_stream.types import PromptKind
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_stream.types import Frame, PromptSet

__all__ = ["GroundingDinoPerceiver"]

DEFAULT = "IDEA-Research/grounding-dino-tiny"
"""The smaller of the released models."""


@dataclass(slots=True)
class _Caption:
    """Several prompts that the network reads as one text: `[CLS] cat . red apple . [SEP]`."""

    tokens: list[int]
    """Of the text so far."""
    spans: dict[int, slice] = field(default_factory=dict)
    """Where each prompt stands, by its position in the prompt set."""

    def add(self, prompt_id: int, tokens: Sequence[int], stop: int) -> None:
        """Add a prompt, and the stop after it."""
        self.spans[prompt_id] = slice(len(self.tokens), len(self.tokens) + len(tokens))
        self.tokens += [*tokens, stop]


class GroundingDinoPerceiver(PretrainedPeer):
    """Grounding DINO as a perceiver: names share a caption, a sentence has its own.

    A box's score for a prompt is its mean over the prompt's tokens, as the authors' evaluation on
    COCO has it. Where names do not fit into one caption, the network runs once for each.

    Its options are those of `PretrainedPeer`.
    """

    kind = "GroundingDinoForObjectDetection"
    default = DEFAULT

    def __init__(
        self,
        *,
        model: str = DEFAULT,
        threshold: float = 0.3,
        device: str = "auto",
        dtype: str = "float32",
        nms: float = 0.7,
        per_prompt: int = 100,
    ) -> None:
        super().__init__(
            model=model,
            device=device,
            dtype=dtype,
            threshold=threshold,
            nms=nms,
            per_prompt=per_prompt,
        )
        self._edges = _edges(model_folder(model))
        self._captions: list[_Caption] = []

    def encode(self, prompts: PromptSet) -> None:
        """Lay the prompts out in captions.

        Raises:
            PromptError: a prompt has no letter or digit, or is longer than a caption.
        """
        most = self.network.config.max_text_len
        begin, end, stop = self._ids(["[CLS]", "[SEP]", "."])
        captions: list[_Caption] = []
        shared: _Caption | None = None
        for prompt_id, prompt in enumerate(prompts):
            tokens = self._tokens(prompt.text)
            if len(tokens) + 3 > most:
                raise PromptError(f"prompt {prompt.text[:40]!r}... has more than {most - 3} tokens")
            target = None if prompt.kind is PromptKind.SENTENCE else shared
            if target is None or len(target.tokens) + len(tokens) + 2 > most:
                target = _Caption([begin])
                captions.append(target)
            if prompt.kind is not PromptKind.SENTENCE:
                shared = target
            target.add(prompt_id, tokens, stop)
        for caption in captions:
            caption.tokens.append(end)
        self._captions = captions

    def _ids(self, words: Iterable[str]) -> list[int]:
        found: list[int] = self._tokenizer.convert_tokens_to_ids(list(words))
        return found

    def _tokens(self, text: str) -> list[int]:
        # Stops and question marks separate prompts: those inside of one would break it.
        clean = text.lower().replace(".", " ").replace("?", " ")
        tokens: list[int] = self._tokenizer(clean, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise PromptError(f"prompt {text!r} has no word that this model could read")
        return tokens

    def candidates(self, frame: Frame) -> list[Candidates]:
        """The boxes of each caption."""
        rgb = short_edge(frame.image, *self._edges)
        pixels = normalised(rgb, IMAGENET_MEAN, IMAGENET_STD).to(self._place, self._dtype)
        return [self._read(pixels, caption, frame.size) for caption in self._captions]

    def _read(self, pixels: Tensor, caption: _Caption, size: tuple[int, int]) -> Candidates:
        tokens = torch.tensor([caption.tokens], device=self._place)
        found = self.network(
            pixel_values=pixels,
            pixel_mask=torch.ones_like(pixels[:, 0], dtype=torch.int64),
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            token_type_ids=torch.zeros_like(tokens),
        )
        scores = found.logits[0].float().sigmoid().cpu()  # (Q, T)
        height, width = size
        boxes = corners(found.pred_boxes[0].float().cpu())
        return Candidates(
            boxes=boxes * torch.tensor([width, height, width, height]),
            scores=torch.stack([scores[:, span].mean(1) for span in caption.spans.values()], 1),
            prompt_ids=torch.tensor(list(caption.spans)),
        )


def _edges(folder: Path) -> tuple[int, int]:
    """Short and longest edge of an image, pixels, as the model's folder says."""
    path = folder / "preprocessor_config.json"
    size = json.loads(read_text(path)).get("size", {}) if path.exists() else {}
    return int(size.get("shortest_edge", 800)), int(size.get("longest_edge", 1333))
