"""SAM 3 (Carion et al., Segment Anything with Concepts), of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ape_peers.images import normalised, resized
from ape_peers.pretrained import PretrainedPeer
from ape_peers.regions import Candidates
from ape_stream import masks

if TYPE_CHECKING:
    from torch import Tensor

    from ape_stream.types import Frame, Mask, PromptSet

__all__ = ["Sam3Perceiver"]

DEFAULT = "facebook/sam3"
"""Its licence must be accepted on the Hub before it can be downloaded."""
TOKENS = 32
"""Of a text, as the model was trained; longer ones are cut."""
KEPT = 1000
"""Texts whose embeddings are kept, 32 vectors each."""
PROMPTS_WITH_MASKS = 16
"""With more prompts, the masks of one are made again once it is known that some are kept: those of
a prompt take 66 MB."""
_HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of its pixels, as its processor has them."""


class Sam3Perceiver(PretrainedPeer):
    """SAM 3 as a perceiver: the image is read once, and each prompt on its own, with masks.

    A region's score is its own times that of the prompt's presence in the image.

    Its options are those of `PretrainedPeer`.
    """

    kind = "Sam3Model"
    default = DEFAULT

    def __init__(
        self,
        *,
        model: str = DEFAULT,
        threshold: float = 0.5,
        device: str = "auto",
        dtype: str = "float32",
        nms: float = 1.0,
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
        self._side: int = self.network.config.vision_config.backbone_config.image_size
        self._known: dict[str, tuple[Any, Tensor]] = {}
        self._texts: list[tuple[Any, Tensor]] = []

    @torch.inference_mode()
    def encode(self, prompts: PromptSet) -> None:
        """Embed the prompts that are new."""
        if len(self._known) > KEPT:
            self._known.clear()
        for text in prompts.texts:
            if text not in self._known:
                self._known[text] = self._embedded(text)
        self._texts = [self._known[text] for text in prompts.texts]

    def _embedded(self, text: str) -> tuple[Any, Tensor]:
        tokens = self._tokenizer(
            [text], padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self._place)
        words = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        return self.network.get_text_features(**words, return_dict=True), words["attention_mask"]

    def candidates(self, frame: Frame) -> list[Candidates]:
        """The regions of each prompt."""
        rgb = resized(frame.image, (self._side, self._side))
        pixels = normalised(rgb, _HALF, _HALF).to(self._place, self._dtype)
        seen = self.network.get_vision_features(pixel_values=pixels)
        return [self._read(seen, k, frame.size) for k in range(len(self._texts))]

    def _read(self, seen: Any, prompt_id: int, size: tuple[int, int]) -> Candidates:
        found = self._found(seen, prompt_id)
        presence = found.presence_logits[0].float().sigmoid()
        scores = found.pred_logits[0].float().sigmoid() * presence  # (Q,)
        height, width = size
        boxes = found.pred_boxes[0].float().cpu() * torch.tensor([width, height, width, height])
        few = len(self._texts) <= PROMPTS_WITH_MASKS
        at_hand: Tensor | None = found.pred_masks[0] if few else None  # (Q, h, w) logits

        def cut(rows: list[int]) -> tuple[Mask, ...]:
            if not rows:
                return ()
            logits = self._found(seen, prompt_id).pred_masks[0] if at_hand is None else at_hand
            chosen = logits[rows].float().cpu().numpy()
            return tuple(masks.from_logits(one, size) for one in chosen)

        return Candidates(boxes, scores[:, None].cpu(), torch.tensor([prompt_id]), cut)

    def _found(self, seen: Any, prompt_id: int) -> Any:
        text, mask = self._texts[prompt_id]
        return self.network(vision_embeds=seen, text_embeds=text, attention_mask=mask)
