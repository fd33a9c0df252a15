"""Boxes, contours and names over an image, as Foxglove's image panel draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ape_stream import masks
from ape_stream.draw import colours_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_nodes.ros2.encoder import Encoder
    from ape_stream.types import FrameResult, Mask

__all__ = ["image_annotations"]

_LINE_LOOP: Final = 2
_FILLED: Final = 0.25


def image_annotations(encoder: Encoder, header: Any, result: FrameResult) -> Any:
    """A foxglove_msgs/ImageAnnotations of everything that was found.

    Outlines are drawn from the corners of pixels, so a pixel's centre is at its number and a half.
    """
    drawn = _Drawing(encoder, header.stamp, max(1.0, min(result.instances.size) / 400))
    points, texts = [], []
    colours = colours_of(result.instances).tolist()
    regions = result.instances.masks
    for k in range(len(result.instances)):
        colour = colours[k]
        x1, y1, x2, y2 = result.instances.boxes[k].tolist()
        points.append(drawn.loop([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour, filled=False))
        if regions is not None:
            points += [drawn.loop(loop, colour, filled=True) for loop in _contours(regions[k])]
        texts.append(drawn.text(_label(encoder, result, k), x1, y1, colour))
    return encoder.message_class("foxglove_msgs/msg/ImageAnnotations")(
        circles=[], points=points, texts=texts
    )


def _contours(mask: Mask) -> Iterator[NDArray[Any]]:
    """Each part's outline, (P, 2) x y; holes are not drawn: one loop cannot leave them out."""
    for polygon in masks.polygons(mask):
        yield polygon.outer + 0.5


def _label(encoder: Encoder, result: FrameResult, k: int) -> str:
    found = result.instances
    track = encoder.track_id(result, k)
    text = result.prompts[int(found.prompt_ids[k])].text
    return " ".join(filter(None, [f"#{track}" if track else "", text, f"{found.scores[k]:.2f}"]))


class _Drawing:
    """Shapes of one message."""

    def __init__(self, encoder: Encoder, stamp: Any, thickness: float) -> None:
        self._class = encoder.message_class
        self._stamp = stamp
        self._thickness = thickness

    def _color(self, bgr: list[int], alpha: float) -> Any:
        blue, green, red = (value / 255 for value in bgr)
        return self._class("foxglove_msgs/msg/Color")(r=red, g=green, b=blue, a=alpha)

    def _point(self, x: float, y: float) -> Any:
        return self._class("foxglove_msgs/msg/Point2")(x=float(x), y=float(y))

    def loop(self, points: Any, bgr: list[int], *, filled: bool) -> Any:
        """A closed line."""
        return self._class("foxglove_msgs/msg/PointsAnnotation")(
            timestamp=self._stamp,
            type=_LINE_LOOP,
            points=[self._point(x, y) for x, y in points],
            outline_color=self._color(bgr, 1.0),
            outline_colors=[],
            fill_color=self._color(bgr, _FILLED if filled else 0.0),
            thickness=self._thickness,
        )

    def text(self, words: str, x: float, y: float, bgr: list[int]) -> Any:
        """Words on a coloured ground."""
        return self._class("foxglove_msgs/msg/TextAnnotation")(
            timestamp=self._stamp,
            position=self._point(x, y),
            text=words,
            font_size=12.0 * self._thickness,
            text_color=self._color([0, 0, 0], 1.0),
            background_color=self._color(bgr, 0.8),
        )
