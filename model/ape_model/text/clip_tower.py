"""The text towers of the released models: EVA-CLIP's transformers over CLIP tokens.

    ids (P, T) -> token + position embedding -> N pre-norm causal blocks -> LayerNorm -> projection
               -> word states (P, T, D) -> one vector per text (P, D), by `Pooling`

Module names follow the official state_dict (`net.text...`): released weights load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from ape_model.network.layers import SelfAttention
from ape_model.text.clip_tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE, ClipTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["TEXT_TOWERS", "ClipTextEncoder", "Pooling", "TextConfig", "TextTower", "pool"]

_TOKENS_PER_BATCH: Final = 4_096  # bounds memory: about 200 MB in float32 at the widest tower


class Pooling(StrEnum):
    """How the word states of a text become its one vector."""

    EOT = "eot"
    """The state of the end token: what every released model was trained with."""
    MEAN = "mean"
    """The mean over the states of all tokens, both marks among them: the article's sentence-level
    embedding (Shen et al. 2024, section 3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The sizes in which text towers differ."""

    width: int
    """Channels of a token."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads; they divide the width."""
    out_width: int = 1024
    """Channels D of the projected states."""
    context_length: int = CONTEXT_LENGTH
    """Largest number of tokens of a text."""
    vocabulary_size: int = VOCABULARY_SIZE
    """Rows of the token table."""
    scale_in_text: bool
    """Whether the contrastive temperature, which is not used here, is called `net.text.logit_scale`
    in the state_dict, or `net.logit_scale`."""

    def __post_init__(self) -> None:
        """Check that the heads divide the width.

        Raises:
            ValueError: `width` is not a multiple of `heads`.
        """
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")


TEXT_TOWERS: Final = {
    "eva01-g": TextConfig(width=768, layers=12, heads=12, scale_in_text=True),
    "eva02-bigE": TextConfig(width=1280, layers=32, heads=20, scale_in_text=False),
}
"""Towers of the released models: EVA_CLIP_g_14_X of A, B, C; EVA02-CLIP-bigE-14-plus of D, Ti."""


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x)))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)  # (P, T, C)
        x = x + self.attn(normed, normed)
        return x + self.mlp(self.ln_2(x))


class _Transformer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            _Block(config.width, config.heads) for _ in range(config.layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class _TextTransformer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.text_projection = nn.Parameter(torch.empty(config.width, config.out_width))
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.transformer = _Transformer(config)
        self.ln_final = nn.LayerNorm(config.width)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=config.width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]  # (P, T, C)
        return self.ln_final(self.transformer(x)) @ self.text_projection  # (P, T, D)


class _Net(nn.Module):
    """The level of the official module that held the image tower too."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.text = _TextTransformer(config)
        # Not used; its key must exist, so that official weights load strictly.
        holder = self.text if config.scale_in_text else self
        holder.logit_scale = nn.Parameter(torch.zeros(()))


class TextTower(nn.Module):
    """Token ids to word states; the state_dict has the official keys below `model_language.`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.net = _Net(config)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the projected state of every token.

        Args:
            ids: (P, T) int64 token ids, T at most the context length. No token attends to a later
                one, so that columns after the last end mark may be left out.

        Returns:
            (P, T, D) states in the dtype of the weights, not normalised.
        """
        return self.net.text(ids)


def pool(states: Tensor, ids: Tensor, pooling: Pooling) -> Tensor:
    """Reduce word states to one vector per text.

    Args:
        states: (P, T, D) projected states.
        ids: (P, T) int64 token ids; the first of the largest id is the end of the text.
        pooling: Which vector to take.

    Returns:
        (P, D) vectors in the dtype of `states`, not normalised.
    """
    end = ids.argmax(dim=1)  # (P,); the end mark has the largest id of all
    if pooling is Pooling.EOT:
        return states[torch.arange(len(ids), device=ids.device), end]
    inside = torch.arange(ids.shape[1], device=ids.device) <= end[:, None]  # (P, T)
    kept = states * inside[..., None].to(states.dtype)  # (P, T, D)
    # 1e-6 as in the official code.
    return kept.sum(dim=1) / (inside.sum(dim=1, keepdim=True).to(states.dtype) + 1e-6)


class ClipTextEncoder:
    """Texts to vectors with a tower and the tokenizer it was trained with."""

    def __init__(self, tower: TextTower, pooling: Pooling = Pooling.EOT) -> None:
        self.tower = tower.eval()
        self.pooling = pooling
        self.tokenizer = ClipTokenizer()

    @torch.no_grad()
    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Tensor:
        """Encode any number of texts in bounded memory.

        Texts of similar length share a batch, truncated to the longest of them: a name of three
        tokens costs three tokens, not seventy-seven.

        Args:
            texts: P texts of any content; an empty one has the vector of "no words".
            progress: Called after every batch with the number of texts done.

        Returns:
            (P, D) float32 on the CPU, not normalised.
        """
        config = self.tower.config
        ids = self.tokenizer(texts, config.context_length)
        lengths = ids.argmax(dim=1) + 1  # (P,) tokens up to the end mark
        out = torch.empty(len(texts), config.out_width)
        # From the longest down: the batch that needs the most memory comes first.
        rest = lengths.argsort(stable=True)
        while len(rest):
            rest, batch = self._next_batch(rest, lengths)
            out[batch] = self._encode_batch(ids[batch, : int(lengths[batch].max())])
            if progress is not None:
                progress(len(texts) - len(rest))
        return out

    def _next_batch(self, rest: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Split (R,) rows of texts, shortest first, into the remaining ones and the longest few."""
        count = max(1, _TOKENS_PER_BATCH // int(lengths[rest[-1]]))
        return rest[:-count], rest[-count:]

    def _encode_batch(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.tower.net.text.positional_embedding.device)
        return pool(self.tower(ids), ids, self.pooling).float().cpu()
