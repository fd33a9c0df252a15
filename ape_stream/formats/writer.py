"""What all writers share: numbers, names, checks, losses, and the folder's life.

A format itself is a `Layout`: it knows how files look, and gets images and regions that are checked
and numbered. It writes into a folder that nobody sees before it is whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

import cv2
import PIL.Image

from ape_stream import masks
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError
from ape_stream.files import file_name, written
from ape_stream.formats.folder import PartFolder
from ape_stream.formats.records import record_values, video_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.formats.records import (
        FrameRecord,
        InstanceRecord,
        JobRecord,
        RleRecord,
        VideoRecord,
    )
    from ape_stream.types import Mask

__all__ = ["FormatWriter", "Image", "Layout", "Loss", "Losses", "Region", "flat_name"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that a format cannot hold."""

    format: str
    what: str
    """In plural: "holes"."""
    count: int


class Losses:
    """How often a format could not hold something, by what."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        """Count something, in plural: "holes"."""
        if count:
            self._counts[what] += int(count)

    def items(self) -> list[tuple[str, int]]:
        """What and how often, sorted."""
        return sorted(self._counts.items())


@lru_cache(maxsize=32)  # when one frame goes to several formats
def _decoded(rle: RleRecord) -> Mask:
    return masks.decode_rle({"size": rle.size, "counts": rle.counts})


@dataclass(frozen=True)
class Region:
    """One region, numbered and with its category."""

    id: int
    """From 1, unique in the output."""
    category_id: int
    """From 1: the position of its prompt in the job."""
    record: InstanceRecord
    """The rest."""

    @cached_property
    def mask(self) -> Mask | None:
        """The pixels, cut to their extent; None from a model that gives boxes only."""
        return None if self.record.mask is None else _decoded(self.record.mask)

    @cached_property
    def area(self) -> int | float:
        """Number of true pixels; of a box without a mask, its area."""
        if self.rle is not None:
            return masks.rle_area(self.rle)
        _, _, width, height = self.xywh
        return round(width * height, 2)

    @property
    def rle(self) -> dict[str, Any] | None:
        """The pixels as COCO writes them in JSON."""
        mask = self.record.mask
        return None if mask is None else {"size": list(mask.size), "counts": mask.counts}

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """The box as left, top, width, height in pixels."""
        x1, y1, x2, y2 = self.record.box
        return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)


@dataclass(frozen=True)
class Image:
    """One frame, numbered and named, with its regions."""

    id: int
    """From 1, unique in the output."""
    path: str
    """`<video>/<frame>`: relative, unique in the output, fit for a path, without a suffix."""
    record: FrameRecord
    """The rest; `record.image` is the image's name."""
    regions: tuple[Region, ...]
    """In the order of the record."""


def flat_name(path: str) -> str:
    """A relative path as one name, for formats whose folders have no folders inside."""
    return path.replace("/", "_")


class Layout:
    """One format: how its files look.

    Args:
        folder: Where the files go; it exists and is empty.
        job: What made the results.
        losses: Where it counts what the format cannot hold.
    """

    images_in: str | None = None
    """The folder that the images' names count from, where there is one."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        self.folder, self.job, self.losses = folder, job, losses
        self._opened = ExitStack()

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """A video begins; `folder` is its name as a relative path, unique in the output."""

    def frame(self, image: Image) -> None:
        """The next frame of the video."""
        raise NotImplementedError

    def image_name(self, image: Image) -> str | None:
        """Where readers of the format look for an image, relative; None where for none."""
        return None if self.images_in is None else f"{self.images_in}/{image.record.image}"

    def end_video(self) -> None:
        """The video is over."""

    def finish(self) -> None:
        """All videos are written: make the files whole."""

    def file(self, name: str) -> Path:
        """The path of a file, whose folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open_text(self, name: str) -> IO[str]:
        """Open a file of UTF-8 text; after a failure it is closed with the layout."""
        return self.keep(self.file(name).open("w", encoding="utf-8", newline=""))

    def keep(self, opened: T) -> T:
        """Close this with the layout at the latest."""
        self._opened.callback(opened.close)
        return opened

    def close(self) -> None:
        """Close everything that is open."""
        self._opened.close()

    def write_text(self, name: str, text: str) -> None:
        """Write a file of UTF-8 text."""
        self.file(name).write_text(text, encoding="utf-8")

    def write_png(
        self, name: str, pixels: NDArray[np.uint8 | np.uint16], palette: bytes | None = None
    ) -> None:
        """Write (H, W) or (H, W, 3) blue-green-red pixels, or (H, W) indices into a palette."""
        path = self.file(name)
        if palette is None:
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            return
        image = PIL.Image.fromarray(pixels)  # OpenCV writes no palettes
        image.putpalette(palette)
        image.save(path, format="PNG", compress_level=1)


class FormatWriter(Closing):
    """Writes one format; `open_writer` makes it.

    Args:
        name: The format's name, and that of its folder.
        layout: How its files look.
        out_dir: The folder above.
        job: What made the results.
        images: Where the images lie under the names that records have, if they do: those that
            the format's readers look for are linked into its folder.
        overwrite: Replace what an earlier writer made.
    """

    def __init__(
        self,
        name: str,
        layout: type[Layout],
        out_dir: str | Path,
        job: JobRecord,
        *,
        images: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.name = name
        self._layout_type = layout
        self._folder = PartFolder(Path(out_dir) / name, overwrite=overwrite)
        self._job = job
        self._image_folder = images
        self._category_ids = {prompt.text: k for k, prompt in enumerate(job.prompts, start=1)}
        self._losses = Losses()
        self._videos: dict[str, VideoRecord] = {}  # by flat name
        self._video: VideoRecord | None = None
        self.images = 0
        """Frames written so far."""
        self.instances = 0
        """Regions written so far."""
        self._last_frame = -1
        self._paths: set[str] = set()

    @property
    def path(self) -> Path:
        """The folder in the end."""
        return self._folder.path

    @property
    def losses(self) -> tuple[Loss, ...]:
        """What could not be held so far."""
        return tuple(Loss(self.name, what, n) for what, n in self._losses.items())

    @property
    def summary(self) -> dict[str, Any]:
        """Path, counts and losses as values of JSON."""
        return {
            "format": self.name,
            "path": str(self.path),
            "images": self.images,
            "instances": self.instances,
            "losses": {loss.what: loss.count for loss in self.losses},
        }

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder.open()
        self._layout = self._layout_type(self._folder.part, self._job, self._losses)
        return self

    def begin_video(self, video: VideoRecord) -> None:
        """Start a video.

        Raises:
            ConfigError: the one before has not ended, or both would share a folder.
            SinkError: a file cannot be written.
        """
        if self._video is not None:
            raise ConfigError(f"video {self._video.name!r} has not ended")
        folder = video_folder(video.name)
        flat = flat_name(folder)
        if flat in self._videos:
            raise ConfigError(
                f"videos {self._videos[flat].name!r} and {video.name!r} would share the name"
                f" {flat}: rename one"
            )
        self._video, self._videos[flat] = video, video
        self._last_frame = -1
        self._paths = set()
        with written(self._folder.part):
            self._layout.begin_video(video, folder)

    def frame(self, frame: FrameRecord) -> None:
        """Write the next frame of the video.

        Raises:
            ConfigError: the frame is of another video or size, is not after the one before, or has
                a prompt that is not in the job.
            SinkError: a file cannot be written.
        """
        self._check(frame)
        self.images += 1
        self._last_frame = frame.frame
        image = Image(
            self.images, self._path_of(frame), frame, tuple(map(self._region, frame.instances))
        )
        with written(self._folder.part):
            self._layout.frame(image)
            self._link(image)

    def _link(self, image: Image) -> None:
        """Give an image the name that the format's readers look for."""
        name = self._layout.image_name(image)
        if self._image_folder is None or name is None:
            return
        source = self._image_folder / image.record.image
        if not source.is_file():
            return
        target = self._layout.file(name)
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without links, or another one
            shutil.copyfile(source, target)

    def _check(self, frame: FrameRecord) -> None:
        video = self._video
        if video is None or frame.stream != video.name:
            raise ConfigError(f"frame {frame.frame} of {frame.stream!r} is outside of its video")
        if frame.frame <= self._last_frame:
            raise ConfigError(f"frame {frame.frame} of {frame.stream!r} is not in order")
        # Images of a folder may differ in size, frames of a video not.
        if frame.file is None and frame.size != (video.height, video.width):
            raise ConfigError(
                f"frame {frame.frame} of {frame.stream!r} has {frame.size[1]}x{frame.size[0]}"
                f" pixels, its video {video.width}x{video.height}"
            )

    def _path_of(self, frame: FrameRecord) -> str:
        folder = video_folder(frame.stream)
        if frame.file is None:
            return f"{folder}/{frame.frame:06d}"
        # Of images from several folders, some may have one name.
        path = f"{folder}/{file_name(PurePosixPath(frame.file).stem)}"
        if path in self._paths:
            path = f"{path}-{frame.frame:06d}"
        self._paths.add(path)
        return path

    def _region(self, record: InstanceRecord) -> Region:
        category_id = self._category_ids.get(record.prompt)
        if category_id is None:
            raise ConfigError(f"prompt {record.prompt!r} is not among those of the job")
        self.instances += 1
        return Region(self.instances, category_id, record)

    def end_video(self) -> None:
        """End the video.

        Raises:
            ConfigError: none has begun.
            SinkError: a file cannot be written.
        """
        if self._video is None:
            raise ConfigError("no video has begun")
        self._video = None
        with written(self._folder.part):
            self._layout.end_video()

    def close(self, error: BaseException | None = None, /) -> None:
        """Make the files whole and give the folder its name; after an error, remove it."""
        about: dict[str, Any] | None = None
        try:
            if error is None:
                if self._video is not None:
                    raise ConfigError(f"video {self._video.name!r} has not ended")
                with written(self._folder.part):
                    self._layout.finish()
                self._layout.close()
                about = self._about()
        finally:
            self._layout.close()
            self._folder.close(about)

    def _about(self) -> dict[str, Any]:
        videos = [record_values(video) for video in self._videos.values()]
        summary = {key: value for key, value in self.summary.items() if key != "path"}
        return {**summary, "job": record_values(self._job), "videos": videos}
