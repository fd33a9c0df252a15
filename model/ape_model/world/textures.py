"""Procedural textures of stuff: every texture is one seamless tile, drawn once and cached.

Each painter returns a (TILE, TILE, 3) float32 BGR image that wraps around at all edges, so that a
window of any size can be cut out of the repeated tile. Noise is periodic because it is filtered in
the discrete Fourier transform; patterns are periodic because their periods divide TILE.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]
    Painter = Callable[[np.random.Generator], Plane]

__all__ = ["PAINTERS", "TILE", "texture", "window"]

TILE = 256
"""Side of a tile, pixels."""


def _noise(rng: np.random.Generator, scale_x: float, scale_y: float) -> Plane:
    """Smooth periodic noise, (TILE, TILE) float32 in 0..1; scales are sizes of blobs in pixels."""
    # White noise under a Gaussian low-pass; the 1st and 99th percentile become 0 and 1. A product
    # of spectra is a circular convolution: the filtered noise wraps around.
    spectrum = np.fft.fft2(rng.standard_normal((TILE, TILE)))
    fy = np.fft.fftfreq(TILE)[:, None] * scale_y
    fx = np.fft.fftfreq(TILE)[None, :] * scale_x
    field = np.fft.ifft2(spectrum * np.exp(-8.0 * (fx**2 + fy**2))).real
    low, high = np.percentile(field, (1, 99))
    return np.asarray(np.clip((field - low) / (high - low), 0, 1), np.float32)


def _blend(
    mix: Plane, dark: tuple[float, float, float], light: tuple[float, float, float]
) -> Plane:
    """Interpolate between two BGR colours; `mix` is (TILE, TILE) in 0..1, 0 is dark."""
    colours = np.asarray(dark) + mix[..., None] * (np.asarray(light) - np.asarray(dark))
    return np.asarray(colours, np.float32)


def _grid() -> tuple[Plane, Plane]:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    return y, x


def _cells(rng: np.random.Generator, count: int) -> tuple[Plane, NDArray[np.int64]]:
    """Periodic Voronoi cells (Worley 1996).

    Returns:
        (TILE, TILE) float32 difference of the distances to the two nearest seeds, which is 0 on
        the borders of cells; and (TILE, TILE) int64 the nearest seed.
    """
    seeds = rng.uniform(0, TILE, (count, 2)).astype(np.float32)
    y, x = _grid()
    dy = np.abs(y[..., None] - seeds[:, 0])  # (TILE, TILE, count)
    dx = np.abs(x[..., None] - seeds[:, 1])
    # The shorter way around in each axis: the tile is a torus.
    distance = np.hypot(np.minimum(dy, TILE - dy), np.minimum(dx, TILE - dx))
    two = np.partition(distance, 1, axis=-1)  # [..., 0] and [..., 1]: the two smallest, in order
    return (two[..., 1] - two[..., 0]).astype(np.float32), distance.argmin(-1)


# Painters: colours are BGR, 0..255; sizes of blobs and patterns are pixels.


def _sky(rng: np.random.Generator) -> Plane:
    return _blend(_noise(rng, 160, 60), (228, 160, 76), (248, 206, 146))


def _clouds(rng: np.random.Generator) -> Plane:
    puffs = 0.7 * _noise(rng, 70, 38) + 0.3 * _noise(rng, 22, 16)
    return _blend(np.clip(1.6 * puffs - 0.3, 0, 1), (150, 138, 130), (236, 232, 230))


def _night_sky(rng: np.random.Generator) -> Plane:
    image = _blend(_noise(rng, 90, 90), (44, 16, 10), (92, 40, 26))
    for y, x in rng.integers(4, TILE - 4, (90, 2)):  # no star touches the edge of the tile
        radius, light = int(rng.integers(0, 2)), float(rng.uniform(170, 255))
        cv2.circle(image, (int(x), int(y)), radius, (light, light, light), -1)
    return image


def _grass(rng: np.random.Generator) -> Plane:
    blades = 0.65 * _noise(rng, 3, 14) + 0.35 * _noise(rng, 50, 50)
    return _blend(blades, (24, 104, 36), (70, 200, 120))


def _water(rng: np.random.Generator) -> Plane:
    waves = _noise(rng, 42, 7)
    image = _blend(waves, (150, 84, 10), (196, 148, 40))
    image[waves > 0.86] = (240, 226, 170)
    return image


def _sand(rng: np.random.Generator) -> Plane:
    y, _ = _grid()
    bend = 26 * _noise(rng, 90, 60)
    # Nine whole waves down the tile, bent by noise.
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (y * 9 + bend * 4) / TILE)
    return _blend(
        (0.7 * ripples + 0.3 * _noise(rng, 2, 2)).astype(np.float32),
        (120, 180, 214),
        (168, 222, 246),
    )


def _snow(rng: np.random.Generator) -> Plane:
    image = _blend(_noise(rng, 80, 50), (242, 226, 214), (255, 252, 250))
    image[_noise(rng, 3, 3) > 0.97] = (236, 200, 176)
    return image


def _brick_wall(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    row = y // 16  # bricks are 32 x 16 pixels
    along = (x + 16 * (row % 2)) % TILE  # every other row is shifted by half a brick
    shade = rng.uniform(0, 1, (TILE // 16, TILE // 32)).astype(np.float32)
    mix = 0.7 * shade[row.astype(int), (along // 32).astype(int)] + 0.3 * _noise(rng, 4, 4)
    image = _blend(mix, (40, 52, 138), (74, 100, 200))
    image[(y % 16 < 2.5) | (along % 32 < 2.5)] = (188, 196, 204)
    return image


def _wood(rng: np.random.Generator) -> Plane:
    y, _ = _grid()
    plank = (y // 32).astype(int)
    shade = rng.uniform(0, 1, TILE // 32).astype(np.float32)[plank]
    image = _blend(0.45 * shade + 0.55 * _noise(rng, 90, 3), (42, 82, 134), (98, 156, 210))
    image[y % 32 < 2] = (22, 44, 76)
    return image


def _road(rng: np.random.Generator) -> Plane:
    image = _blend(
        0.8 * _noise(rng, 2, 2) + 0.2 * _noise(rng, 60, 60), (58, 54, 54), (108, 104, 102)
    )
    y, x = _grid()
    image[(np.abs(y % 128 - 64) < 4) & (x % 64 < 38)] = (232, 236, 236)  # dashed white lines
    return image


def _leaves(rng: np.random.Generator) -> Plane:
    image = np.full((TILE, TILE, 3), (16, 44, 18), np.float32)
    for _ in range(620):
        y, x = rng.integers(0, TILE, 2)
        colour = np.asarray((20, 76, 20)) + rng.uniform(0, 1) * np.asarray((34, 84, 50))
        axes, turn = (int(rng.integers(7, 12)), int(rng.integers(3, 5))), float(rng.uniform(0, 180))
        # Nine copies: what leaves the tile on one side enters it on the other.
        for oy in (-TILE, 0, TILE):
            for ox in (-TILE, 0, TILE):
                centre = (int(x) + ox, int(y) + oy)
                cv2.ellipse(image, centre, axes, turn, 0, 360, colour.tolist(), -1)
    return image


def _carpet(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    # Distance to the centre of each 64 px field in the taxicab norm, whose circles are diamonds.
    diamonds = np.abs(x % 64 - 32) + np.abs(y % 64 - 32)
    image = _blend(
        0.5 + 0.3 * np.sin(x * np.pi / 2) + 0.2 * _noise(rng, 2, 2), (70, 22, 104), (104, 40, 150)
    )
    image[np.abs(diamonds - 24) < 3] = (92, 176, 226)
    image[diamonds < 7] = (92, 176, 226)
    return image


def _stone(rng: np.random.Generator) -> Plane:
    gap, seed = _cells(rng, 70)  # a stone is a cell, its joint where the gap is small
    shade = rng.uniform(0, 1, 70).astype(np.float32)[seed]
    image = _blend(0.75 * shade + 0.25 * _noise(rng, 5, 5), (118, 122, 124), (182, 184, 186))
    image[gap < 4] = (62, 66, 70)
    return image


def _soil(rng: np.random.Generator) -> Plane:
    clumps = 0.6 * _noise(rng, 12, 12) + 0.4 * _noise(rng, 3, 3)
    return _blend(clumps, (14, 28, 48), (58, 92, 128))


def _tiles(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    chequer = ((x // 32 + y // 32) % 2).astype(np.float32)
    image = _blend(0.85 * chequer + 0.15 * _noise(rng, 30, 30), (122, 120, 30), (246, 244, 226))
    image[(y % 32 < 1.5) | (x % 32 < 1.5)] = (150, 150, 140)
    return image


def _lava(rng: np.random.Generator) -> Plane:
    gap, _ = _cells(rng, 45)
    # Hot along the borders of cells, cold crust inside them.
    heat = np.clip(1 - gap / 16, 0, 1) * (0.6 + 0.4 * _noise(rng, 20, 20))
    image = _blend(heat.astype(np.float32), (18, 14, 42), (20, 70, 240))
    image[heat > 0.72] = (70, 190, 255)
    return image


PAINTERS: dict[str, Painter] = {
    "sky": _sky,
    "clouds": _clouds,
    "night sky": _night_sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "snow": _snow,
    "brick wall": _brick_wall,
    "wood": _wood,
    "road": _road,
    "leaves": _leaves,
    "carpet": _carpet,
    "stone": _stone,
    "soil": _soil,
    "tiles": _tiles,
    "lava": _lava,
}
"""Stuff name to its painter."""


@cache
def texture(name: str) -> NDArray[np.uint8]:
    """Return the seamless tile of a stuff, (TILE, TILE, 3) uint8 BGR, read-only.

    Raises:
        KeyError: no stuff has this name.
    """
    rng = np.random.default_rng(list(name.encode()))  # every process paints the same tile
    tile = np.clip(PAINTERS[name](rng), 0, 255).astype(np.uint8)
    tile.flags.writeable = False
    return tile


def window(
    name: str, top: int, left: int, size: tuple[int, int], light: float = 1.0
) -> NDArray[np.uint8]:
    """Cut a window out of the repeated tile.

    Args:
        name: Of the stuff.
        top: First row; any integer.
        left: First column; any integer.
        size: Height and width of the window.
        light: Brightness factor.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    height, width = size
    rows = np.arange(top, top + height) % TILE
    columns = np.arange(left, left + width) % TILE
    pixels = texture(name).take(rows, axis=0).take(columns, axis=1)
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=light), np.uint8)
