"""The user's images as batches of one, seen as in inference: fitted to the canvas, then padded."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ape_model.config import NanoConfig
from ape_model.training.data.augment import jittered, no_margin
from ape_model.training.data.batch import collate
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Canvas, Phase

if TYPE_CHECKING:
    from ape_model.config import ApeConfig
    from ape_model.training.data.augment import Placement
    from ape_model.training.data.batch import Batch
    from ape_model.training.finetuning.config import FineTuneConfig
    from ape_stream.datasets.instances import InstanceData, InstanceImage

__all__ = ["TuneBatches"]


class TuneBatches(CocoBatches):
    """Batches of one image; batch k is a function of the seed and k.

    Every image comes up once before one comes up again.

    Args:
        data: The images.
        config: Seed, jitter, views.
        network: Sizes of the network.
        steps: Batches of the run.
        views: Fixed views of an image to choose from; None: every time a new one.
        rank: Of this process in a distributed run.
        processes: Of the run.
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
            example = self.plain(index, self.side)
        else:
            rng = random.Random(f"{self.seed}/view/{index}/{number}")  # noqa: S311
            example = self.jittered(entry, (self.side, self.side), rng)
        return replace(collate([example], self.network), key=f"{key}/{self.config.scale}")

    def _arrange(
        self, entry: InstanceImage, size: tuple[int, int], rng: random.Random
    ) -> tuple[Placement, tuple[int, int]]:
        """The canvas ends where the image does, at most at `size`; what is left is padding."""
        return no_margin(jittered(entry.size, size, self._scale(entry), rng), entry.size, size)
