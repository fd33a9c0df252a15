"""Every error that ape_model raises on purpose, as one tree.

    ModelError
    ├── VariantError          a model's name or an option of it is not known
    ├── ModelMissingError     a model is known but its files are not here
    ├── CheckpointError       a file of weights cannot be read, written or does not fit
    ├── PromptTextError       a prompt cannot be encoded with what is here
    ├── BankError             a file of prompt embeddings cannot be read or does not fit
    └── HubError              a published file cannot be downloaded

The user can fix all of them, by another value, another file or an installed extra; every message is
one line that names it. The perceiver and the commands turn them into the core's usage errors.
"""

from __future__ import annotations

__all__ = [
    "BankError",
    "CheckpointError",
    "HubError",
    "ModelError",
    "ModelMissingError",
    "PromptTextError",
    "VariantError",
]


class ModelError(Exception):
    """Root of the tree: catch this to catch everything ape_model raises on purpose."""


class VariantError(ModelError):
    """A variant, a text tower or an option is not one of those that exist."""


class ModelMissingError(ModelError):
    """A model is known by name, but its weights are not on this machine."""


class CheckpointError(ModelError):
    """A file of weights cannot be read or written, or does not fit the variant."""


class PromptTextError(ModelError):
    """A prompt cannot be encoded: no words, or no text tower and no bank that knows it."""


class BankError(ModelError):
    """A file of prompt embeddings cannot be read, written, or belongs to another model."""


class HubError(ModelError):
    """A published file cannot be downloaded."""
