"""What an evaluation draws and asks, and the figures that it returns."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_SIZES", "EvaluationPlan", "Figures", "Report", "size_name"]

Figures = dict[str, float]
"""Numbers by name."""
Report = dict[str, float | int | str | Figures | dict[str, Figures]]
"""Numbers by name, and groups of them; ready for JSON."""

DEFAULT_SIZES = ((240, 320), (216, 384), (384, 216))
"""Height and width of the common shapes of video, 4:3, 16:9 and 9:16, at a similar area."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is drawn and asked."""

    seed: int = 1_000_000
    """First seed: image k has seed + k."""
    scenes: int = 100
    """Images for names, synonyms and absent words; as many again for sentences."""
    sizes: tuple[tuple[int, int], ...] = DEFAULT_SIZES
    """Height and width of images and videos, pixels; images take them in turn."""
    videos: int = 3
    """Videos for the tracks, in the sizes in turn; 0 leaves them out."""
    frames: int = 120
    """Frames of each video."""
    fps: float = 30.0
    """Frames per second of the videos."""

    def __post_init__(self) -> None:
        """Refuse numbers that give nothing to judge.

        Raises:
            ValueError: a number is out of range.
        """
        if self.scenes < 1 or self.videos < 0 or self.frames < 1 or self.fps <= 0 or self.seed < 0:
            raise ValueError(
                "scenes and frames are at least 1, videos and seed at least 0, fps > 0"
            )
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ValueError("at least one size is needed, and none twice")

    def size(self, k: int) -> tuple[int, int]:
        """Height and width of the image or video at this position."""
        return self.sizes[k % len(self.sizes)]

    @property
    def seeds(self) -> range:
        """Seeds of the images."""
        return range(self.seed, self.seed + self.scenes)


def size_name(size: tuple[int, int]) -> str:
    """A (height, width) as users write it, WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"
