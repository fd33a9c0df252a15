"""What the frozen parts of a network make of an image, computed once and kept on disk.

One memory-mapped file for each view of an image, `<folder>/<key>.safetensors`, whole or absent. The
key is a digest of everything that decides the content, so that a file of another network, image or
view is never taken for it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import torch

from ape_model.errors import CheckpointError
from ape_model.io.safetensors_io import read_safetensors, write_safetensors
from ape_model.network.ape import ImageFeatures, PromptFeatures
from ape_model.network.geometry import Levels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Batch

__all__ = ["FeatureStore", "encoded", "queries_of", "restore"]

Tensors = dict[str, "Tensor"]
_KEPT: Final = torch.float16  # half of the disk; the official evaluation runs in it as a whole


class FeatureStore:
    """A folder of features of bounded size.

    Args:
        folder: Made when first written to.
        space: What decides the features besides the image: network, mode, size.
        most: Bytes kept; what does not fit is computed again each time.
    """

    def __init__(self, folder: Path, space: str, most: int) -> None:
        self.folder, self.space, self.most = folder, space, most
        self.kept = self.refused = 0
        """Views that are on disk, and that did not fit."""
        self._bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))

    def get(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return the features of a view, from disk where they are.

        Args:
            name: Of the view: image file, its state, and how it lies on the canvas.
            compute: Makes them, on the CPU.
        """
        path = self._path(name)
        if path.is_file():
            try:
                return read_safetensors(path)[0]
            except CheckpointError:  # cut off or damaged: it is computed again
                path.unlink(missing_ok=True)
        found = compute()
        size = sum(tensor.nbytes for tensor in found.values())
        if self._bytes + size > self.most:
            self.refused += 1
            return found
        write_safetensors(path, found, {"view": name})
        self._bytes += path.stat().st_size
        self.kept += 1
        return found

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(f"{self.space}\0{name}".encode()).hexdigest()
        return self.folder / f"{digest[:40]}.safetensors"


@torch.no_grad()
def encoded(network: Ape, batch: Batch) -> Tensors:
    """The encoded tokens of one image with names as prompts: all that its heads start from."""
    features = network.encode_image(batch.images, batch.sizes)
    no_names = network.name_prompt_fusion_feature if network.config.fusion else None
    memory, _ = network.encode(features, PromptFeatures(fusion=no_names, classes=None))
    return {
        "memory": memory.to(_KEPT).cpu(),
        "lateral": features.lateral.to(_KEPT).cpu(),
        "grids": torch.tensor(features.geometry.levels.shapes),
    }


def restore(network: Ape, batch: Batch, kept: Tensors) -> tuple[ImageFeatures, Tensor]:
    """The features that `Ape.decode` reads, and the (1, N, C) memory, of what `encoded` made."""
    canvas = (batch.images.shape[2], batch.images.shape[3])
    device = batch.images.device
    grids = Levels(tuple((int(h), int(w)) for h, w in kept["grids"]))
    geometry = network.coordinates.geometry(grids, batch.sizes, canvas, device)
    lateral = kept["lateral"].to(device).float()
    features = ImageFeatures((), lateral, geometry, batch.sizes, canvas)
    return features, kept["memory"].to(device).float()


@torch.no_grad()
def queries_of(network: Ape, batch: Batch) -> Tensors:
    """States and boxes of the queries of one image with names as prompts, which no name changes."""
    features, memory = restore(network, batch, encoded(network, batch))
    names = PromptFeatures(fusion=None, classes=memory.new_zeros(1, 1, network.config.text_width))
    outputs = network.decode(features, names, memory, None)
    canvas = (batch.images.shape[2], batch.images.shape[3])
    return {
        "hidden": outputs.decoded.hidden.float().cpu(),
        "boxes": outputs.decoded.boxes.float().cpu(),
        "proposals": network.coordinates.to_shares(outputs.proposals.boxes, batch.sizes, canvas)
        .float()
        .cpu(),
    }
