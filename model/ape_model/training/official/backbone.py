"""Pre-trained weights of EVA-02 into the backbone, with any prefix of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from ape_model.errors import CheckpointError
from ape_model.io.checkpoint_reader import read_checkpoint
from ape_model.weights.state_dict import is_recomputed

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["load_backbone"]

_NESTED: Final = ("model", "module", "state_dict")
"""Keys under which published files hold their weights."""
_NAMED: Final = 3  # weights listed in a message


@torch.no_grad()
def load_backbone(vit: nn.Module, path: Path) -> str:
    """Load what fits by name and shape; `visual.` (CLIP) may stand in front of a name.

    Args:
        vit: The vision transformer, changed in place.
        path: A file of torch.save.

    Returns:
        What was loaded, in one line; it names weights that stay random.

    Raises:
        CheckpointError: the file cannot be read, or nothing in it fits.
    """
    given = _weights(path)
    own = {key: value for key, value in vit.state_dict().items() if not is_recomputed(key)}
    missing = []
    for key, value in own.items():
        source = given.get(key, given.get(f"visual.{key}"))
        if source is None or source.shape != value.shape:
            missing.append(key)
        else:
            value.copy_(source)
    loaded = len(own) - len(missing)
    if not loaded:
        raise CheckpointError(f"{path} has no weight of this backbone")
    rest = f"; random: {', '.join(missing[:_NAMED])}" if missing else ""
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"backbone: {loaded} of {len(own)} weights from {path.name}{rest}{more}"


def _weights(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no weights")
    return {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor)
    }
