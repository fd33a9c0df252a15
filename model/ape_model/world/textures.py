"""Procedural stuff: every texture is one seamless tile, drawn once and cached.

Each painter returns a (TILE, TILE, 3) uint8 BGR picture that wraps around at all edges, so that any
window of any size can be cut out of it.
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
    """Smooth periodic noise, (TILE, TILE) float32 within 0..1; scales are blob sizes in pixels."""
    spectrum = np.fft.fft2(rng.standard_normal((TILE, TILE)))
    fy = np.fft.fftfreq(TILE)[:, None] * scale_y
    fx = np.fft.fftfreq(TILE)[None, :] * scale_x
    field = np.fft.ifft2(spectrum * np.exp(-8.0 * (fx**2 + fy**2))).real
    low, high = np.percentile(field, (1, 99))
    return np.asarray(np.clip((field - low) / (high - low), 0, 1), np.float32)


def _blend(
    mix: Plane, dark: tuple[float, float, float], light: tuple[float, float, float]
) -> Plane:
    """Colours between two BGR colours by a (TILE, TILE) mixing plane of 0..1."""
    colours = np.asarray(dark) + mix[..., None] * (np.asarray(light) - np.asarray(dark))
    return np.asarray(colours, np.float32)


def _grid() -> tuple[Plane, Plane]:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32)
    return y, x


def _cells(rng: np.random.Generator, count: int) -> tuple[Plane, NDArray[np.int64]]:
    """Periodic Voronoi cells: distance gap between the two nearest seeds, and the nearest seed."""
    seeds = rng.uniform(0, TILE, (count, 2)).astype(np.float32)
    y, x = _grid()
    dy = np.abs(y[..., None] - seeds[:, 0])
    dx = np.abs(x[..., None] - seeds[:, 1])
    distance = np.hypot(np.minimum(dy, TILE - dy), np.minimum(dx, TILE - dx))
    two = np.partition(distance, 1, axis=-1)
    return (two[..., 1] - two[..., 0]).astype(np.float32), distance.argmin(-1)


def _sky(rng: np.random.Generator) -> Plane:
    return _blend(_noise(rng, 160, 60), (228, 160, 76), (248, 206, 146))


def _clouds(rng: np.random.Generator) -> Plane:
    puffs = 0.7 * _noise(rng, 70, 38) + 0.3 * _noise(rng, 22, 16)
    return _blend(np.clip(1.6 * puffs - 0.3, 0, 1), (150, 138, 130), (236, 232, 230))


def _night_sky(rng: np.random.Generator) -> Plane:
    picture = _blend(_noise(rng, 90, 90), (44, 16, 10), (92, 40, 26))
    for y, x in rng.integers(4, TILE - 4, (90, 2)):
        radius, light = int(rng.integers(0, 2)), float(rng.uniform(170, 255))
        cv2.circle(picture, (int(x), int(y)), radius, (light, light, light), -1)
    return picture


def _grass(rng: np.random.Generator) -> Plane:
    blades = 0.65 * _noise(rng, 3, 14) + 0.35 * _noise(rng, 50, 50)
    return _blend(blades, (24, 104, 36), (70, 200, 120))


def _water(rng: np.random.Generator) -> Plane:
    waves = _noise(rng, 42, 7)
    picture = _blend(waves, (150, 84, 10), (196, 148, 40))
    picture[waves > 0.86] = (240, 226, 170)
    return picture


def _sand(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    bend = 26 * _noise(rng, 90, 60)
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (y * 9 + bend * 4 + 0 * x) / TILE)
    return _blend(
        (0.7 * ripples + 0.3 * _noise(rng, 2, 2)).astype(np.float32),
        (120, 180, 214),
        (168, 222, 246),
    )


def _snow(rng: np.random.Generator) -> Plane:
    picture = _blend(_noise(rng, 80, 50), (242, 226, 214), (255, 252, 250))
    picture[_noise(rng, 3, 3) > 0.97] = (236, 200, 176)
    return picture


def _brick_wall(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    row = y // 16
    along = (x + 16 * (row % 2)) % TILE
    shade = rng.uniform(0, 1, (TILE // 16, TILE // 32)).astype(np.float32)
    mix = 0.7 * shade[row.astype(int), (along // 32).astype(int)] + 0.3 * _noise(rng, 4, 4)
    picture = _blend(mix, (40, 52, 138), (74, 100, 200))
    picture[(y % 16 < 2.5) | (along % 32 < 2.5)] = (188, 196, 204)
    return picture


def _wood(rng: np.random.Generator) -> Plane:
    y, _ = _grid()
    plank = (y // 32).astype(int)
    shade = rng.uniform(0, 1, TILE // 32).astype(np.float32)[plank]
    picture = _blend(0.45 * shade + 0.55 * _noise(rng, 90, 3), (42, 82, 134), (98, 156, 210))
    picture[y % 32 < 2] = (22, 44, 76)
    return picture


def _road(rng: np.random.Generator) -> Plane:
    picture = _blend(
        0.8 * _noise(rng, 2, 2) + 0.2 * _noise(rng, 60, 60), (58, 54, 54), (108, 104, 102)
    )
    y, x = _grid()
    picture[(np.abs(y % 128 - 64) < 4) & (x % 64 < 38)] = (232, 236, 236)
    return picture


def _leaves(rng: np.random.Generator) -> Plane:
    picture = np.full((TILE, TILE, 3), (16, 44, 18), np.float32)
    for _ in range(620):
        y, x = rng.integers(0, TILE, 2)
        colour = np.asarray((20, 76, 20)) + rng.uniform(0, 1) * np.asarray((34, 84, 50))
        axes, turn = (int(rng.integers(7, 12)), int(rng.integers(3, 5))), float(rng.uniform(0, 180))
        for oy in (-TILE, 0, TILE):
            for ox in (-TILE, 0, TILE):
                centre = (int(x) + ox, int(y) + oy)
                cv2.ellipse(picture, centre, axes, turn, 0, 360, colour.tolist(), -1)
    return picture


def _carpet(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    diamonds = np.abs(x % 64 - 32) + np.abs(y % 64 - 32)
    picture = _blend(
        0.5 + 0.3 * np.sin(x * np.pi / 2) + 0.2 * _noise(rng, 2, 2), (70, 22, 104), (104, 40, 150)
    )
    picture[np.abs(diamonds - 24) < 3] = (92, 176, 226)
    picture[diamonds < 7] = (92, 176, 226)
    return picture


def _stone(rng: np.random.Generator) -> Plane:
    gap, seed = _cells(rng, 70)
    shade = rng.uniform(0, 1, 70).astype(np.float32)[seed]
    picture = _blend(0.75 * shade + 0.25 * _noise(rng, 5, 5), (118, 122, 124), (182, 184, 186))
    picture[gap < 4] = (62, 66, 70)
    return picture


def _soil(rng: np.random.Generator) -> Plane:
    clumps = 0.6 * _noise(rng, 12, 12) + 0.4 * _noise(rng, 3, 3)
    return _blend(clumps, (14, 28, 48), (58, 92, 128))


def _tiles(rng: np.random.Generator) -> Plane:
    y, x = _grid()
    chequer = ((x // 32 + y // 32) % 2).astype(np.float32)
    picture = _blend(0.85 * chequer + 0.15 * _noise(rng, 30, 30), (122, 120, 30), (246, 244, 226))
    picture[(y % 32 < 1.5) | (x % 32 < 1.5)] = (150, 150, 140)
    return picture


def _lava(rng: np.random.Generator) -> Plane:
    gap, _ = _cells(rng, 45)
    heat = np.clip(1 - gap / 16, 0, 1) * (0.6 + 0.4 * _noise(rng, 20, 20))
    picture = _blend(heat.astype(np.float32), (18, 14, 42), (20, 70, 240))
    picture[heat > 0.72] = (70, 190, 255)
    return picture


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
"""How each stuff of the vocabulary is painted."""


@cache
def texture(name: str) -> NDArray[np.uint8]:
    """The seamless tile of this stuff, (TILE, TILE, 3) uint8 BGR, read-only.

    Raises:
        KeyError: no stuff has this name.
    """
    rng = np.random.default_rng(list(name.encode()))
    tile = np.clip(PAINTERS[name](rng), 0, 255).astype(np.uint8)
    tile.flags.writeable = False
    return tile


def window(
    name: str, top: int, left: int, size: tuple[int, int], light: float = 1.0
) -> NDArray[np.uint8]:
    """Cut (height, width) pixels out of the endlessly repeated tile, (H, W, 3) BGR uint8.

    `light` is a brightness factor; the result is a fresh array.
    """
    height, width = size
    rows = np.arange(top, top + height) % TILE
    columns = np.arange(left, left + width) % TILE
    pixels = texture(name).take(rows, axis=0).take(columns, axis=1)
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=light), np.uint8)
