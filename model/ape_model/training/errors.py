"""Errors of training, each one line."""

from ape_model.errors import ModelError

__all__ = ["DataError", "RecipeError", "TextTowerError", "TrainingError"]


class TrainingError(ModelError):
    """A run cannot go on."""


class DataError(TrainingError):
    """A data set cannot be trained on; the message names the file and what is wrong in it."""


class RecipeError(TrainingError):
    """A recipe has a key or a value that does not exist."""


class TextTowerError(TrainingError):
    """A text tower does not tell names apart, so that no vision can be trained on it."""
