"""Images that are set aside for the score, and another file's images for it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.datasets.instances import InstanceData

__all__ = ["split", "with_classes_of"]

_NAMED = 3  # classes listed in an error message


def split(data: InstanceData, part: float, seed: int) -> tuple[InstanceData, InstanceData]:
    """Set images aside for the score, at least one; of a single image, both get it.

    Args:
        data: All images.
        part: Of them that is set aside, 0..1.
        seed: Of the choice.

    Returns:
        The images to learn from, and those for the score.
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
        data: What is learnt.
        other: Regions of further classes are left out, and counted.
        path: Of the other file, for the message.

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
