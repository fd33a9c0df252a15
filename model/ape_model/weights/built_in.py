"""The models that ship with the package: their files, and what each of them knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ASSETS", "BUILT_IN", "DEFAULT", "TEXT", "TEXT_DIGEST", "BuiltIn"]

ASSETS: Final = Path(__file__).parents[1] / "assets"
TEXT: Final = "nano_text.safetensors"
"""File of the text tower, one for all of them."""
TEXT_DIGEST: Final = "e5c0b53272fb9fe94ffb808736ed6237221c477c94b52da34804b3d7217738c6"
"""SHA-256 of that file. Recorded here, so that cached prompts and banks are recognised without the
file, and no start has to read it."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A model that ships."""

    vision: str
    """File of the network."""
    names: str | None
    """File of the names that it learnt as names; None: they are in the network's header."""
    knows: str
    """What it was trained on, in few words."""
    licence: str
    """Terms of the weights and of what they were made from, in a line."""
    card: str
    """Its model card in the repository."""


DEFAULT: Final = "nano"
BUILT_IN: Final = {
    "nano": BuiltIn(
        vision="nano.safetensors",
        names="nano_vocabulary.json",
        knows="drawings only (synthetic://)",
        licence="Apache-2.0; sprites OFL-1.1, their names Unicode licence",
        card="docs/nano.md",
    ),
    "street": BuiltIn(
        vision="street.safetensors",
        names=None,
        knows="photographs of streets, and drawings",
        licence="Apache-2.0; trained on CamVid, which is research data (see the card)",
        card="docs/street.md",
    ),
}
"""By the name that the user gives; they share variant and text tower."""
