"""The user's images as batches of one, seen as in inference: fitted to the canvas, then padded."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ape_model.config import NanoConfig
from ape_model.inference.preprocess import fitted_size, resize_rgb
from ape_model.training.data.augment import Placement, View, jittered, place
from ape_model.training.data.batch import collate
from ape_model.training.data.coco_dataset import CocoBatches, read_view
from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from ape_model.config import ApeConfig
    from ape_model.training.data.batch import Batch, Example
    from ape_model.training.finetuning.config import FineTuneConfig
    from ape_stream.datasets.instances import InstanceData, InstanceImage

__all__ = ["TuneBatches", "split", "with_classes_of"]

_NAMED = 3  # classes listed in an error message


class TuneBatches(CocoBatches):
    """Batches of one image; batch k is a function of the seed and k.

    Every image comes up once before one comes up again.

    Args:
        data: the images.
        config: seed, jitter, views.
        network: sizes of the network.
        steps: batches of the run.
        views: fixed views of an image to choose from; None: every time a new one.
        rank: of this process in a distributed run.
        processes: of the run.
    """

    def __init__(
        self,
        data: InstanceData,
        config: FineTuneConfig,
        network: NanoConfig | ApeConfig,
        *,
        steps: int,
        views: int | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.side = (network.ape if isinstance(network, NanoConfig) else network).canvas
        phases = (Phase(0, (Canvas(self.side, self.side, 1),)),)
        row = DataConfig(scale=config.scale, copy_paste=0.0)
        super().__init__(
            data, phases, row, seed=config.seed, network=network, steps=steps, rank=rank
        )
        self.views, self.processes = views, processes

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step; its key names the view where views are fixed.

        Raises:
            DataError: an image cannot be read.
        """
        turn, position = divmod(step * self.processes + self.rank, len(self.usable))
        order = list(range(len(self.usable)))
        random.Random(f"{self.seed}/{turn}").shuffle(order)  # noqa: S311 - a seed, not a secret
        index = order[position]
        rng = random.Random(f"{self.seed}/{step}/{self.rank}")  # noqa: S311
        if self.views is None:
            entry = self.usable[index]
            return collate([self.jittered(entry, (self.side, self.side), rng)], self.network)
        return self.view(index, rng.randrange(self.views))

    def view(self, index: int, number: int) -> Batch:
        """Make a fixed view of an image, the first one of it as it is in inference."""
        entry = self.usable[index]
        state = entry.path.stat()
        key = f"{entry.path.absolute()}/{state.st_size}/{state.st_mtime_ns}/{self.seed}/{number}"
        if number == 0:
            example = self.plain(index)
        else:
            rng = random.Random(f"{self.seed}/view/{index}/{number}")  # noqa: S311
            example = self.jittered(entry, (self.side, self.side), rng)
        return replace(collate([example], self.network), key=f"{key}/{self.config.scale}")

    def plain(self, index: int) -> Example:
        """Return an image as inference sees it."""
        entry = self.usable[index]
        size = fitted_size(entry.size, self.side)
        # Sides are rounded each by itself: one scale for both may miss the last row.
        whole = read_view(entry, Placement(1.0, 0, 0), entry.size)
        ids = place(
            whole.ids,
            Placement(max(size[0] / entry.size[0], size[1] / entry.size[1]), 0, 0),
            size,
            0,
        )
        pixels = resize_rgb(whole.image, size)[..., ::-1]
        return self._finish(View(pixels, ids, whole.regions), mirrored=False)

    def _arrange(
        self, entry: InstanceImage, size: tuple[int, int], rng: random.Random
    ) -> tuple[Placement, tuple[int, int]]:
        """The canvas ends where the image does, at most at `size`; what is left is padding."""
        where = jittered(entry.size, size, self._scale(entry), rng)
        sides = [
            min(room, max(1, round(where.scale * side)))
            for side, room in zip(entry.size, size, strict=True)
        ]
        where = replace(where, top=min(0, where.top), left=min(0, where.left))
        return where, (sides[0], sides[1])


def split(data: InstanceData, part: float, seed: int) -> tuple[InstanceData, InstanceData]:
    """Set images aside for the score, at least one; of a single image, both get it.

    Args:
        data: all images.
        part: of them that is set aside, 0..1.
        seed: of the choice.

    Returns:
        the images to learn from, and those for the score.
    """
    order = list(data.images)
    random.Random(f"{seed}/split").shuffle(order)  # noqa: S311 - a seed, not a secret
    aside = min(len(order) - 1, max(1, round(part * len(order))))
    if part == 0 or aside < 1:
        return data, data
    return replace(data, images=tuple(order[aside:])), replace(data, images=tuple(order[:aside]))


def with_classes_of(data: InstanceData, other: InstanceData, path: Path) -> InstanceData:
    """Give another file's regions the class ids of the data that are learnt, by name.

    Args:
        data: what is learnt.
        other: regions of further classes are left out, and counted.
        path: of the other file, for the message.

    Raises:
        DataError: it has none of the classes.
    """
    ids = {name.casefold(): k for k, name in enumerate(data.names)}
    class_of = [ids.get(name.casefold()) for name in other.names]
    images = []
    for image in other.images:
        regions = []
        for region in image.regions:
            class_id = class_of[region.class_id]
            if class_id is None:
                other.skips.add("of a class that is not learnt")
            else:
                regions.append(replace(region, class_id=class_id))
        if regions:
            images.append(replace(image, regions=tuple(regions)))
    if not images:
        raise DataError(f"{path} has no region of {', '.join(data.names[:_NAMED])}")
    return replace(data, images=tuple(images), skips=other.skips)
