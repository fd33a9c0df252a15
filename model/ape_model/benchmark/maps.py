"""What maps of every pixel cost beyond the masks, and the owner of every pixel in both forms.

The network runs once; what follows it is measured, with maps and without them in turn, so that a
busy machine slows all alike.
"""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import torch

from ape_model.perceiver import ApePerceiver
from ape_model.world import World
from ape_stream import masks
from ape_stream.errors import UsageError
from ape_stream.sources.pixels import read_image
from ape_stream.tables import read_size
from ape_stream.types import Frame, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_model.network.ape import Ape
    from ape_stream.types import MapKind, SemanticMap

__all__ = ["MapCosts", "measure_maps", "run"]

_SEED: Final = 1_000_007
"""Of the scene; no run trains on it."""
_SIDE: Final = 480
"""Long side that the scene is drawn in, pixels: at this size its things are as nano knows them."""
_THINGS: Final = 12
"""Most things in a drawn image."""
_KINDS: Final[tuple[MapKind, ...]] = ("semantic", "panoptic")


@dataclass(frozen=True, slots=True)
class MapCosts:
    """CPU milliseconds of one frame, medians."""

    masks: float
    """All that follows the network, without maps."""
    semantic: float
    """What a semantic map adds."""
    panoptic: float
    """What a panoptic map adds."""
    owners: float
    """Of the semantic map: the owner of every pixel (`masks.argmax_upsampled`)."""
    owners_plain: float
    """The same by upsampling every map."""
    differ: int
    """Pixels to which the two give different owners: maps that are equal but for rounding."""


def run(
    model: str,
    image: Path | None,
    prompts: Sequence[str] | None,
    size: str,
    canvas: int,
    repeats: int,
    threads: int,
) -> tuple[MapCosts, dict[str, object]]:
    """Measure a frame; see `ape-stream bench maps`.

    Returns:
        The costs, and what was measured.
    """
    height, width = read_size(size, "--size", UsageError)
    if image is not None and not prompts:
        raise UsageError("--image needs names to paint: give --prompt")
    pixels, names = _scene((height, width)) if image is None else (read_image(image), [])
    names = list(prompts or names)
    frame = Frame(np.asarray(cv2.resize(pixels, (width, height)), np.uint8), 0, 0.0)
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        perceiver = ApePerceiver(model=model, device="cpu", canvas=canvas)
        perceiver.prepare(PromptSet.of(names))
        torch.set_num_threads(threads)  # nano's perceiver leaves a core free
        costs = measure_maps(perceiver, frame, repeats)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    about: dict[str, object] = {"model": model, "size": size, "canvas": canvas}
    return costs, about | {"prompts": len(names), "threads": threads, "repeats": repeats}


def _scene(size: tuple[int, int]) -> tuple[NDArray[np.uint8], list[str]]:
    """A scene of the drawn world as large as `size`, and the names of what is in it."""
    world = World(max_objects=_THINGS)
    small = world.scene(_SEED, (_SIDE * size[0] // max(size), _SIDE * size[1] // max(size)))
    names = dict.fromkeys(world.names[one.class_id] for one in small.instances)
    return small.image, list(names)


def measure_maps(perceiver: ApePerceiver, frame: Frame, repeats: int) -> MapCosts:
    """Measure the maps of one frame.

    Args:
        perceiver: Prepared for its prompts.
        frame: What is perceived.
        repeats: Rounds; the median is taken.
    """
    nothing: frozenset[MapKind] = frozenset()
    forms = [nothing, *(frozenset((kind,)) for kind in _KINDS)]
    with _network_once(perceiver.network):
        [(_, maps)] = perceiver.perceive_with_maps([frame], forms[1])
        rounds = [
            [_cpu_ms(partial(perceiver.perceive_with_maps, [frame], form)) for form in forms]
            for _ in range(repeats)
        ]
    assert maps.semantic is not None  # noqa: S101 (asked for)
    # Differences within a round: its parts met the same neighbours on the machine.
    return MapCosts(
        masks=statistics.median(plain for plain, _, _ in rounds),
        semantic=statistics.median(with_map - plain for plain, with_map, _ in rounds),
        panoptic=statistics.median(with_map - plain for plain, _, with_map in rounds),
        **_owners(maps.semantic, frame.size, repeats),
    )


def _owners(found: SemanticMap, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """The owner of every pixel, all gates open, in both forms."""
    values = found.coarse
    assert values is not None  # noqa: S101 (the perceiver's own maps have it)
    gates = np.ones((1, *values.shape[1:]), np.float32)

    def fast() -> Any:
        return masks.argmax_upsampled(values, gates, size, found.filled)

    def plain() -> Any:
        return masks.upsampled(values, size, found.filled).argmax(0) + 1

    rounds = [(_cpu_ms(fast), _cpu_ms(plain)) for _ in range(repeats)]
    return {
        "owners": statistics.median(one for one, _ in rounds),
        "owners_plain": statistics.median(other for _, other in rounds),
        "differ": int((fast() != plain()).sum()),
    }


def _cpu_ms(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


@contextmanager
def _network_once(network: Ape) -> Iterator[None]:
    """Keep what the network gives for the first frame, and give it again."""
    names = ("encode_image", "head")
    for name in names:
        setattr(network, name, _first_result(getattr(network, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(network, name)  # the method of the class is back


def _first_result(call: Callable[..., Any]) -> Callable[..., Any]:
    kept: list[Any] = []

    def again(*given: Any) -> Any:
        if not kept:
            with torch.inference_mode():
                kept.append(call(*given))
        return kept[0]

    return again
