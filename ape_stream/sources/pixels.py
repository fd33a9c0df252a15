"""Images as people hold them (arrays, PIL images, files) to the pixels of a frame."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ape_stream.errors import SourceError, UsageError, reason_of
from ape_stream.sources.media import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "ImageLike",
    "as_arrays",
    "count_images",
    "from_array",
    "from_pil",
    "is_image",
    "read_animation",
    "read_image",
    "to_bgr",
]

_log = logging.getLogger("ape_stream")
_filters = threading.Lock()
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by its EXIF orientation (Exif 2.32, 4.6.4)."""
_ANIMATIONS = ("AVIF", "PNG", "WEBP")
"""Pillow's formats that may be animations. (FFmpeg reads GIF.)"""
_SEVERAL = (*_ANIMATIONS, "GIF", "TIFF")
"""Those in which several images are no previews of the first one, as they are in many JPEGs."""
# SyntaxError: what Pillow raises for a broken PNG. EOFError: an animation that ends early.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)

ImageLike: TypeAlias = "NDArray[np.uint8] | Image.Image | str | PathLike[str]"
"""One image: an array as OpenCV has it (blue-green-red), a PIL image, or the path of a file."""


def as_arrays(item: Any) -> Any:
    """A torch tensor as an array, and an array of four dimensions as a list of images; else `item`.

    Raises:
        UsageError: an array has neither the shape of an image nor that of a list of images.
    """
    torch = sys.modules.get("torch")  # not imported: who has a tensor has torch
    if torch is not None and isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray):
        if item.ndim == 4:  # (N, H, W, C)
            return [from_array(image) for image in item]
        from_array(item)
    return item


def is_image(item: object) -> bool:
    """True for what holds pixels itself: an array or a PIL image."""
    return isinstance(item, (np.ndarray, Image.Image))


def to_bgr(image: ImageLike) -> NDArray[np.uint8]:
    """The pixels of an image, (H, W, 3) uint8 blue-green-red.

    Args:
        image: See `ImageLike`; an array may also be grey (H, W[, 1]) or have alpha (H, W, 4), which
            is dropped. A PIL image is taken as its pixels are stored: `PIL.ImageOps.exif_transpose`
            turns a photograph upright; files are turned by themselves.

    Raises:
        UsageError: it is none of these.
        SourceError: the file cannot be read as an image.
    """
    image = as_arrays(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, (str, PathLike)):
        return read_image(_path(fspath(image)))
    raise UsageError(
        f"an image is a NumPy array, a PIL image or a path, got {type(image).__name__}"
    )


def _path(given: str) -> Path:
    """The path of one image file.

    Raises:
        UsageError: it names something else; the message says what takes that.
    """
    path = Path(given)
    if not given or "://" in given or path.is_dir():
        what = "a folder" if given and "://" not in given else "no image file"
        raise UsageError(
            f"{given!r} is {what}: give the path of one image, or `ape_stream.open` what it takes"
            " as a source"
        )
    return path


def from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W[, 1]), (H, W, 3) or (H, W, 4) uint8, blue-green-red as in OpenCV, to (H, W, 3).

    Raises:
        UsageError: another shape or dtype, or no pixel.
    """
    if array.ndim == 2 or array.shape[2:] == (1,):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)  # (H, W, 3)
    fits = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not fits or 0 in array.shape:
        raise UsageError(
            "an image array is (H, W, 3) uint8, blue-green-red, and not empty;"
            f" got {array.shape} {array.dtype}{_how_to_convert(array)}"
        )
    # Without alpha; a view of the caller's array, no copy.
    return array[..., :3]


def _how_to_convert(array: NDArray[Any]) -> str:
    """What to do with an array as networks have it."""
    steps = []
    if array.dtype.kind == "f":
        steps.append("multiply values of 0..1 by 255 and make them uint8")
    elif array.dtype == np.uint16:
        steps.append("divide values of 16 bits by 257 and make them uint8")
    elif array.dtype.kind in "biu" and array.dtype != np.uint8:
        steps.append("make them uint8, 0..255, with .astype(np.uint8)")
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (3, 4):
        steps.append("put channels last with .transpose(1, 2, 0), of a tensor .permute(1, 2, 0)")
    return f": {', and '.join(steps)}" if steps else ""


def from_pil(image: Image.Image) -> NDArray[np.uint8]:
    """A PIL image of any mode to (H, W, 3) uint8 blue-green-red; alpha is dropped."""
    if image.mode.startswith("I"):  # 16-bit grey: keep the high byte, as for 16-bit colour
        high = np.clip(np.asarray(image), 0, 0xFFFF).astype(np.uint16) >> 8
        return np.repeat(high.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in {"P", "PA"}:  # a palette may hold colours with transparency
        image = image.convert("RGBA")
    # Reversed channels are a view with negative strides, which OpenCV refuses: copy.
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)[..., ::-1])


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a file, turned as its EXIF says, to (H, W, 3) uint8 blue-green-red.

    Pillow refuses an image that is cut short, where OpenCV would fill up with grey. Of an animation
    it is the first image, and a warning says so.

    Raises:
        SourceError: the file cannot be read as an image; the message names it.
    """
    with _refused(path), _opened(path) as (image, orientation):
        count = getattr(image, "n_frames", 1) if image.format in _SEVERAL else 1
        if count > 1:
            _log.warning("%s holds %d images: the first is taken", path, count)
        return _upright(image, orientation)


def count_images(path: Path) -> int:
    """How many images an animation (PNG, WebP, AVIF) holds; 1 for all else, and what is damaged."""
    with suppress(*_UNREADABLE), _quiet(path) as image:
        return int(getattr(image, "n_frames", 1)) if image.format in _ANIMATIONS else 1
    return 1


def read_animation(path: Path) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Every image of an animation, as of `read_image`, and how long it is shown, seconds.

    Raises:
        SourceError: the next image cannot be read; the message names the file.
    """
    with _refused(path), _opened(path) as (image, orientation):
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels = _upright(image, orientation)  # decodes, after which the duration is known
            yield pixels, image.info.get("duration", 0) / 1000  # milliseconds


def _upright(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    turned = _UPRIGHT.get(orientation)
    return from_pil(image if turned is None else image.transpose(turned))


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn Pillow's errors into a `SourceError` that names the file."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise SourceError(f"{path} is not an image that can be read{_instead(path)}") from error
    except _UNREADABLE as error:
        raise SourceError(f"cannot read the image {path}: {reason_of(error)}") from error


def _instead(path: Path) -> str:
    """What reads a file that is no image."""
    return ": `ape_stream.open` reads videos" if path.suffix.lower() in VIDEO_SUFFIXES else ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, int]]:
    """An image that is not decoded yet, and its orientation (EXIF tag 0x0112)."""
    with _quiet(path) as image:
        # Of a PNG this decodes the pixels, and fails where they are cut short.
        with _named_warnings(path):
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        yield image, orientation


@contextmanager
def _quiet(path: Path) -> Iterator[Image.Image]:
    """A file that Pillow has opened."""
    with ExitStack() as stack:
        with _named_warnings(path):
            image = stack.enter_context(Image.open(path))
        yield image


@contextmanager
def _named_warnings(path: Path) -> Iterator[None]:
    """Log Pillow's warnings (of damaged EXIF) with the file's name."""
    # Python's filters belong to the process.
    with _filters, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
    if caught:
        _log.warning("%s: %s", path, " ".join(str(caught[0].message).split()))
