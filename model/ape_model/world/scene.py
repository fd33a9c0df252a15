"""Scenes of the drawn world: stuff behind, sprites in front, and the exact truth about both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_model.world.sprites import draw, paste
from ape_model.world.textures import TILE, window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_model.world.sprites import Pose
    from ape_model.world.words import Vocabulary

__all__ = ["Actor", "Backdrop", "Compositor", "Instance", "Region", "Scene", "random_backdrop"]

MIN_VISIBLE = 0.5
"""A sprite of which a smaller part is visible is drawn, but goes to `Scene.ignored`."""
MIN_STUFF = 0.01
"""A stuff region that covers a smaller part of the frame goes to `Scene.ignored`."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The visible part of one thing, or one region of stuff."""

    id: int
    """Its value in the scene's instance map, >= 1; the track id in a video."""
    class_id: int
    """Position in `World.names`."""
    stuff: bool
    """True for an amorphous region."""
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 of its visible pixels, x2 and y2 exclusive."""
    area: int
    """Visible pixels."""
    visible: float
    """Visible part of the whole sprite, 0..1; for stuff, its part of the frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image with its exact truth."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8, blue-green-red."""
    instance_map: NDArray[np.int32]
    """(H, W) int32: the id of the instance that is visible at each pixel, >= 1."""
    instances: tuple[Instance, ...]
    """What a detector must find, stuff first; things in drawing order."""
    ignored: tuple[Instance, ...] = ()
    """Instances with too few visible pixels; finding one is neither right nor wrong."""

    def mask(self, instance: Instance) -> NDArray[np.bool_]:
        """(H, W) bool: the visible pixels of one instance."""
        return np.equal(self.instance_map, instance.id)

    @property
    def class_map(self) -> NDArray[np.int32]:
        """(H, W) int32: the class id at each pixel (the semantic map)."""
        everything = (*self.instances, *self.ignored)
        # A table from id to class, applied to all pixels at once.
        lookup = np.full(1 + max(i.id for i in everything), -1, np.int32)
        for instance in everything:
            lookup[instance.id] = instance.class_id
        return lookup[self.instance_map]


@dataclass(frozen=True, slots=True)
class Region:
    """One stuff region of a backdrop: everything below a wavy line, down to the next region."""

    class_id: int
    """Class of the stuff."""
    base: float
    """Mean row of its upper border over the frame's height, 0..1; 0: the whole frame."""
    waves: tuple[tuple[float, float, float], ...] = ()
    """Sines that form the border: amplitude over the frame's height, waves per frame width, phase
    in radians."""
    top: int = 0
    """Row of the texture at the frame's top edge."""
    left: int = 0
    """Column of the texture at the frame's left edge."""
    light: float = 1.0
    """Brightness factor."""


Backdrop = tuple[Region, ...]
"""Regions from far to near; the first one fills the frame."""


def random_backdrop(rng: np.random.Generator, words: Vocabulary, regions: int) -> Backdrop:
    """Choose `regions` (1..3) different stuff classes, and wavy borders between them."""
    stuffs = rng.permutation(np.arange(words.things, len(words.names)))[:regions]
    edges = [0.0, *np.sort(rng.uniform(0.3, 0.85, regions - 1))]
    if regions == 3 and edges[2] - edges[1] < 0.2:  # waves of both borders would meet
        edges[1:] = [0.35, 0.68]
    backdrop = []
    for class_id, base in zip(stuffs, edges, strict=True):
        # Two waves of at most 0.05: a border stays within 0.1 of its base.
        waves = tuple(
            (rng.uniform(0.01, 0.05), rng.uniform(0.5, 2.5), rng.uniform(0, 2 * np.pi))
            for _ in range(2)
        )
        top, left = (int(v) for v in rng.integers(0, TILE, 2))
        light = float(rng.uniform(0.85, 1.1))
        backdrop.append(Region(int(class_id), float(base), waves, top, left, light))
    return tuple(backdrop)


def _border(region: Region, size: tuple[int, int], pan: tuple[float, float]) -> NDArray[np.float64]:
    """Row of the region's upper border in each column, (W,) pixels."""
    height, width = size
    # Border and texture move with the camera: both are functions of the backdrop's own columns.
    x = (np.arange(width) + pan[1]) / width
    line = np.full(width, region.base)
    for amplitude, frequency, phase in region.waves:
        line += amplitude * np.sin(2 * np.pi * frequency * x + phase)
    return line * height - pan[0]


@dataclass(frozen=True, slots=True)
class Actor:
    """One sprite to draw."""

    id: int
    """Its value in the instance map: above the number of regions, and used once."""
    class_id: int
    """Class of the thing."""
    pose: Pose
    """How it is drawn."""


class Compositor:
    """Draws a scene: first the backdrop, then one sprite over the other.

    Args:
        words: The vocabulary of the class ids.
        backdrop: Regions from far to near; region k gets id k + 1.
        size: Height and width of the image in pixels.
        pan: How far the camera has moved down and right over the backdrop, pixels.
    """

    def __init__(
        self,
        words: Vocabulary,
        backdrop: Backdrop,
        size: tuple[int, int],
        pan: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.size = size
        self.backdrop = backdrop
        self.image = np.empty((*size, 3), np.uint8)
        self.ids = np.ones(size, np.int32)  # region 0 has id 1
        self._actors: dict[int, tuple[Actor, int, int]] = {}  # id: actor, full and visible area
        rows = np.arange(size[0])[:, None]
        # From far to near, each region covers everything below its own border.
        for k, region in enumerate(backdrop):
            top, left = round(region.top + pan[0]), round(region.left + pan[1])
            pixels = window(words.names[region.class_id], top, left, size, region.light)
            if k == 0:
                self.image = pixels
                continue
            below = rows >= _border(region, size, pan)
            np.copyto(self.image, pixels, where=below[..., None])
            self.ids[below] = k + 1

    def add(self, actor: Actor, least_visible: float = 0.0) -> bool:
        """Draw a sprite in front of all others.

        Args:
            actor: The sprite.
            least_visible: Part (0..1) of this and of every other sprite that must stay visible.

        Returns:
            False where too little of a sprite would stay visible; nothing is drawn then.
        """
        patch = draw(actor.pose, self.size)
        if patch is None:
            return False
        mask = patch.mask
        shown = int(np.count_nonzero(mask))
        if shown == 0 or shown < least_visible * patch.full_area:
            return False
        # First count what every other sprite would lose, and only then draw.
        covered = self.ids[patch.window][mask]  # (K,)
        hidden = self._hidden_by(covered)
        for id_, loss in hidden.items():
            _, full, visible = self._actors[id_]
            if visible - loss < least_visible * full:
                return False
        for id_, loss in hidden.items():
            other, full, visible = self._actors[id_]
            self._actors[id_] = other, full, visible - loss
        self._actors[actor.id] = actor, patch.full_area, shown
        self.ids[patch.window][mask] = actor.id
        paste(self.image, patch)
        return True

    def _hidden_by(self, covered: NDArray[np.int32]) -> dict[int, int]:
        """Pixels that each earlier sprite loses; `covered` (K,) are the ids under the new one."""
        ids, counts = np.unique(covered[covered > len(self.backdrop)], return_counts=True)
        return dict(zip(ids.tolist(), counts.tolist(), strict=True))

    def scene(self) -> Scene:
        """Return the finished image with its truth."""
        boxes = _boxes(self.ids)
        pixels = self.ids.size
        found: list[Instance] = []
        ignored: list[Instance] = []
        for k, region in enumerate(self.backdrop):
            box, area = boxes.get(k + 1, ((0, 0, 0, 0), 0))
            shown = area / pixels
            stuff = Instance(k + 1, region.class_id, True, box, area, shown)
            if area:
                (found if shown >= MIN_STUFF else ignored).append(stuff)
        for id_, (actor, full, visible) in self._actors.items():
            if visible == 0:  # hidden by later sprites: it has no box
                continue
            shown = visible / full
            thing = Instance(id_, actor.class_id, False, boxes[id_][0], visible, shown)
            (found if shown >= MIN_VISIBLE else ignored).append(thing)
        return Scene(self.image, self.ids, tuple(found), tuple(ignored))


def _boxes(ids: NDArray[np.int32]) -> dict[int, tuple[tuple[int, int, int, int], int]]:
    """Box and area of every id in an (H, W) map."""
    found = {}
    for id_ in np.unique(ids).tolist():  # a few ids: a pass over the map for each is cheap
        mask = (ids == id_).view(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        found[id_] = (x, y, x + w, y + h), int(cv2.countNonZero(mask))
    return found
