"""OWLv2 (Minderer et al., Scaling Open-Vocabulary Object Detection), of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ape_peers.images import CLIP_MEAN, CLIP_STD, normalised, padded_square
from ape_peers.pretrained import PretrainedPeer
from ape_peers.regions import Candidates, corners
from ape_stream.errors import ConfigError
from ape_stream.types import PromptKind

if TYPE_CHECKING:
    from torch import Tensor

    from ape_stream.types import Frame, Prompt, PromptSet

__all__ = ["Owlv2Perceiver"]

DEFAULT = "google/owlv2-base-patch16-ensemble"
"""The smallest of the models that its authors recommend."""
TEXTS = 64
"""Texts of one call of the text tower."""
KEPT = 10_000
"""Texts whose vectors are kept."""


class Owlv2Perceiver(PretrainedPeer):
    """OWLv2 as a perceiver: every patch of the image has a box, and a score for each prompt.

    The other options are those of `PretrainedPeer`.

    Args:
        template: What stands around a prompt that is no sentence; `{}` is the prompt. A text of
            more than 16 tokens is cut, as the model was trained.

    Raises:
        UsageError: the template has no `{}`.
    """

    kind = "Owlv2ForObjectDetection"
    default = DEFAULT

    def __init__(
        self,
        *,
        model: str = DEFAULT,
        threshold: float = 0.1,
        device: str = "auto",
        dtype: str = "float32",
        template: str = "a photo of a {}",
        nms: float = 0.5,
        per_prompt: int = 100,
    ) -> None:
        if "{}" not in template:
            raise ConfigError(f"template {template!r} has no {{}} for the prompt")
        super().__init__(
            model=model,
            device=device,
            dtype=dtype,
            threshold=threshold,
            nms=nms,
            per_prompt=per_prompt,
        )
        self._side: int = self.network.config.vision_config.image_size
        self._template = template
        self._known: dict[str, Tensor] = {}
        self._texts = torch.zeros(0)

    @torch.inference_mode()
    def encode(self, prompts: PromptSet) -> None:
        """Embed the prompts that are new."""
        texts = [self._phrase(prompt) for prompt in prompts]
        if len(self._known) > KEPT:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for first in range(0, len(new), TEXTS):
            some = new[first : first + TEXTS]
            self._known |= zip(some, self._embedded(some), strict=True)
        self._texts = torch.stack([self._known[text] for text in texts])[None]  # (1, P, D)

    def _phrase(self, prompt: Prompt) -> str:
        if prompt.kind is PromptKind.SENTENCE:
            return prompt.text
        return self._template.replace("{}", prompt.text)

    def _embedded(self, texts: list[str]) -> Tensor:
        """(P, D) unit vectors."""
        tokens = self._tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._place)
        found = self.network.owlv2.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        # A tensor in version 4 of transformers.
        vectors: Tensor = getattr(found, "pooler_output", found)
        return vectors / vectors.norm(dim=-1, keepdim=True)

    def candidates(self, frame: Frame) -> list[Candidates]:
        """A box for each patch of the image."""
        rgb = padded_square(frame.image, self._side)
        pixels = normalised(rgb, CLIP_MEAN, CLIP_STD).to(self._place, self._dtype)
        grid, _ = self.network.image_embedder(pixel_values=pixels)  # (1, h, w, C)
        patches = grid.flatten(1, 2)  # (1, Q, C)
        logits, _ = self.network.class_predictor(patches, self._texts)  # (1, Q, P)
        boxes = self.network.box_predictor(patches, grid)[0].float().cpu()  # (Q, 4) of the square
        return [
            Candidates(
                boxes=corners(boxes) * max(frame.size),
                scores=logits[0].float().sigmoid().cpu(),
                prompt_ids=torch.arange(logits.shape[2]),
            )
        ]
