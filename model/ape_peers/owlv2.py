"""OWLv2 (Minderer et al., Scaling Open-Vocabulary Object Detection), of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ape_peers.images import CLIP_MEAN, CLIP_STD, normalised, padded_square
from ape_peers.perceiver import PeerPerceiver
from ape_peers.places import load_pretrained, model_files
from ape_peers.regions import Candidates, corners
from ape_stream.devices import parse_device, parse_dtype
from ape_stream.errors import ConfigError
from ape_stream.types import PromptKind

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ape_stream.types import Frame, Prompt, PromptSet

__all__ = ["Owlv2Perceiver"]

DEFAULT = "google/owlv2-base-patch16-ensemble"
"""The smallest of the models that its authors recommend."""
TEXTS = 64
"""Texts of one call of the text tower."""
KEPT = 10_000
"""Texts whose vectors are kept."""


class Owlv2Perceiver(PeerPerceiver):
    """OWLv2 as a perceiver: every patch of the image has a box, and a score for each prompt.

    Args:
        model: Folder of a model, or its name on the Hugging Face Hub.
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        dtype: "float32", "bfloat16" or "float16".
        template: What stands around a prompt that is no sentence; `{}` is the prompt. A text of
            more than 16 tokens is cut, as the model was trained.
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped.
        per_prompt: Most regions of one prompt in one frame.

    Raises:
        ModelError: the model is not here and cannot be downloaded, or the device is not here.
        UsageError: a number is out of its range, or the template has no `{}`.
    """

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
        super().__init__(threshold=threshold, nms=nms, per_prompt=per_prompt)
        if "{}" not in template:
            raise ConfigError(f"template {template!r} has no {{}} for the prompt")
        self._place, self._dtype = parse_device(device), parse_dtype(dtype)
        self._tokenizer = load_pretrained("AutoTokenizer", model)
        network: Any = load_pretrained("Owlv2ForObjectDetection", model)
        self.network: Any = network.eval().to(self._place, self._dtype)
        self._side: int = network.config.vision_config.image_size
        self._template = template
        self._known: dict[str, Tensor] = {}
        self._texts = torch.zeros(0)

    @staticmethod
    def weights(*, model: str = DEFAULT, **_: Any) -> list[Path]:
        """The files that a perceiver with these options reads; see `KnowsWeights`."""
        return model_files(model)

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
