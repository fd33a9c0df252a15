"""Errors of training, each one line."""

from ape_model.errors import ModelError

__all__ = ["DataError", "RecipeError", "TextTowerError", "TrainingError"]


class TrainingError(ModelError):
    """A run cannot continue."""


class DataError(TrainingError):
    """A data set cannot be trained on; the message names the file and the fault."""


class RecipeError(TrainingError):
    """A recipe has an unknown key or a value that is not allowed."""


class TextTowerError(TrainingError):
    """A text tower does not distinguish names, so that no network can be trained on it."""
