"""What a network knows of a frame before any word: the states of its queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FrameQueries", "NetworkFacts"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameQueries:
    """The Q queries of one frame, in the order of the network."""

    states: NDArray[Any]
    """(Q, C) float32, float16, or bits of bfloat16 as uint16: what the decoder gave."""
    boxes: NDArray[Any]
    """(Q, 4) float32, x1 y1 x2 y2 over the image's width and height, 0..1."""
    cells: tuple[int, int]
    """Height and width of the mask logits."""
    filled: tuple[float, float]
    """Rows and columns of the mask logits that the image fills."""
    mask_logits: Callable[[NDArray[Any]], NDArray[Any]]
    """(K, h, w) int8 for (K,) query numbers, not cut at boxes; can be called at any time. Logits in
    sixteenths, from -127 to 127."""
    facts: NetworkFacts
    """Of the network: the same object in every frame."""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What is needed to score states later, without the network."""

    model: str
    """The model's name."""
    weights: str
    """Digest of its files; see `sampled_digest`."""
    alignment: Mapping[str, NDArray[Any]]
    """float32 parameters of the alignment: `weight` (C, D), `offset` (C,), `bias_weight` (D,),
    `bias_offset` () and `scale` ()."""
    resizing: str
    """How images are resized for the network, as text; another one gives other states."""
    dtype: str
    """Of the states: "float32", "float16" or "bfloat16"."""
    text_tower: str
    """SHA-256 (hex) of the text tower's weights."""
    text_dtype: str
    """Arithmetic of the text tower."""
    text_pooling: str
    """How word states became one vector."""
    threshold: float
    """Lowest score kept for prompts without one of their own, 0..1."""
    mask_margin: float | None
    """How far the mask of a thing reaches out of its box, as a share of it; None: it is not cut."""
    per_prompt: int
    """Most regions of one prompt in one frame."""
    stuff: tuple[str, ...]
    """Clean texts that are stuff without being declared so, sorted."""
    vocabulary: tuple[str, ...]
    """Clean texts of the names that the network learnt, sorted."""
    embed: Callable[[Sequence[str]], NDArray[Any]]
    """(P, D) float32 embeddings of texts, as the network takes them."""
