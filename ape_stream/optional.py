"""The one door for libraries that come with an extra: imported at first use, named when missing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ape_stream.errors import PluginError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["library"]


def library(name: str, extra: str) -> ModuleType:
    """Import an optional library at its first use.

    Args:
        name: The module, such as "lz4.frame".
        extra: The extra of `ape-stream` that installs it.

    Raises:
        PluginError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    # Not only ModuleNotFoundError: a library may be there and lack one of its own parts.
    except ImportError as error:
        raise PluginError(
            f"{name} is not installed: pip install 'ape-stream[{extra}]' ({error})"
        ) from error
