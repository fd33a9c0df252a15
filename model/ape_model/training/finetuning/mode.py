"""What a fine-tuning run learns."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Mode"]


class Mode(StrEnum):
    """What is learnt."""

    PROMPT = "prompt"
    """The vectors of the words; the network stays as it is."""
    HEAD = "head"
    """The class, box and mask heads."""
    LORA = "lora"
    """Low-rank changes of the linear layers of encoder and decoder."""
    FULL = "full"
    """All weights, those next to the image more slowly."""
