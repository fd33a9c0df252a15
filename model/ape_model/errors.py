"""Every error that ape_model raises on purpose: a branch of the tree in `ape_stream.errors`.

    ModelError                of ape_stream: a model cannot be found, read or run here
    ├── VariantError          a model's name or an option of it is not known
    ├── ModelMissingError     a model is known but its files are not here
    ├── CheckpointError       a file of weights cannot be read, written or does not fit
    ├── PromptTextError       a prompt cannot be encoded with what is here; also a PromptError
    ├── BankError             a file of prompt embeddings cannot be read or does not fit
    └── HubError              a published file cannot be downloaded

The user can fix all of them, by another value, another file or an installed extra; every message is
one line that names it.
"""

from __future__ import annotations

from ape_stream.errors import ModelError, PromptError

__all__ = [
    "BankError",
    "CheckpointError",
    "HubError",
    "ModelError",
    "ModelMissingError",
    "PromptTextError",
    "VariantError",
]


class VariantError(ModelError):
    """A variant, a text tower or an option is not one of those that exist."""


class ModelMissingError(ModelError):
    """A model is known by name, but its weights are not on this machine."""


class CheckpointError(ModelError):
    """A file of weights cannot be read or written, or does not fit the variant."""


class PromptTextError(ModelError, PromptError):
    """A prompt cannot be encoded: no words, or no text tower and no bank that knows it."""


class BankError(ModelError):
    """A file of prompt embeddings cannot be read, written, or belongs to another model."""


class HubError(ModelError):
    """A published file cannot be downloaded."""
