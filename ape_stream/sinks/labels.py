"""PNG label maps: an image per frame whose pixels say which region, or which prompt, is there."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np

from ape_stream import masks
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError
from ape_stream.files import (
    PART,
    PartFile,
    file_name,
    is_whole,
    refuse_running,
    refuse_unwritable,
    written,
)
from ape_stream.sinks.jsonl import LineFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.types import FrameResult, MapKind

__all__ = ["LabelsSink", "SemanticSink", "move_label_maps"]

LEGEND = "legend.jsonl"
_SCHEME = re.compile(r"(labels|semantic|panoptic):")


class LabelsSink(Closing):
    """Writes `<folder>/<stream>/<frame>.png`, uint16, and `<folder>/legend.jsonl`.

    Pixel value 0 is nothing; value k is the k-th region of the frame. The legend has a line per
    frame that names the prompt and the track of every value. All is written into `<folder>.part`
    and moved when the run is whole.

    Args:
        spec: The folder.
        overwrite: Replace label maps that an older legend names; other files are never touched.

    Raises:
        ConfigError: the folder holds label maps, or files that a label map would replace.
        SinkError: the folder or a file cannot be written.
    """

    maps: frozenset[MapKind] = frozenset()
    """What it needs of every frame; see `NeedsMaps`."""

    def __init__(self, spec: str, *, overwrite: bool = False) -> None:
        spec = _SCHEME.sub("", spec)
        # A folder such as ./ has no name of its own to which .part could be added.
        self.folder = Path(spec) if Path(spec).name else Path(spec).resolve()
        self.part = self.folder.with_name(self.folder.name + PART)
        self._overwrite = overwrite
        self._legend = PartFile(self.part / LEGEND, overwrite=overwrite)

    @property
    def files(self) -> tuple[Path, ...]:
        """The folders that are written; see `WritesFiles`."""
        return (self.folder, self.part)

    def claim(self, streams: Sequence[str]) -> None:
        """Refuse a folder where something would be lost; see `WritesFiles`."""
        with written(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                raise SinkError(f"cannot write {self.folder}: it is a file")
            if (self.folder / LEGEND).exists() and not self._overwrite:
                raise ConfigError(
                    f"{self.folder} holds label maps already: give another folder, or replace them"
                    " with overwrite=True"
                )
            refuse_unwritable(self.folder)
            for folder in {self.folder / file_name(stream) for stream in streams}:
                self._refuse_unnamed(folder)
            if self.part.exists() and not self._overwrite:
                refuse_running(self._legend.part)
                raise ConfigError(
                    f"{self.part} is left from a run that was cut short: `ape-stream recover"
                    f" {self.part}` makes a whole folder of it, overwrite=True throws it away"
                )

    def _refuse_unnamed(self, folder: Path) -> None:
        """Images that no legend names may be a data set's own."""
        known = {self.folder / name for name in _named(self.folder / LEGEND)}
        for path in sorted(folder.glob("*.png")):
            if path not in known:
                raise ConfigError(
                    f"{path} was not written by an earlier run and could be replaced: give another"
                    " folder"
                )

    def __enter__(self) -> Self:
        """Open the legend."""
        self.claim(())
        # Read before `open` empties the legend's part: the maps that it names are removed below.
        older = [name for legend in self._legend.files for name in _named(legend)]
        self._legend.open()
        with written(self.part):
            for name in older:
                (self.part / name).unlink(missing_ok=True)
            # Without `.part`: of a run that was killed while its maps were moved.
            self._legend.path.unlink(missing_ok=True)
        self._lines = LineFile(self._legend.part, self._legend.stream("w"))
        return self

    def write(self, result: FrameResult) -> None:
        """Write one frame's map and its line of the legend.

        Raises:
            SinkError: a file cannot be written.
            UsageError: the model gives boxes only.
        """
        frame = result.frame
        name = f"{file_name(frame.stream)}/{frame.index:06d}.png"
        path = self.part / name
        encoded, png = cv2.imencode(".png", self._pixels(result))
        if not encoded:
            raise SinkError(f"cannot encode {path} as PNG: {frame.size[1]}x{frame.size[0]} pixels")
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png.tobytes())
        # After the image: every file that the legend names is whole.
        self._lines.write({"file": name, "time_s": frame.time_s, **self._legend_of(result, name)})

    def _pixels(self, result: FrameResult) -> NDArray[Any]:
        """What the PNG of a frame holds."""
        return masks.label_map(
            result.instances.masks_for(f"output {self.folder}"), result.frame.size
        )

    def _legend_of(self, result: FrameResult, name: str) -> dict[str, Any]:
        """What the legend says of a frame, whose PNG has this name."""
        del name
        found = result.instances
        tracks = [0] * len(found) if found.track_ids is None else found.track_ids.tolist()
        regions = [
            {
                "value": k,
                "prompt": result.prompts[int(prompt_id)].text,
                "track_id": track if track > 0 else None,
            }
            for k, (prompt_id, track) in enumerate(
                zip(found.prompt_ids, tracks, strict=True), start=1
            )
        ]
        return {"regions": regions}

    def close(self, error: BaseException | None = None) -> None:
        """Move what was written to its folder; a run that was cut short leaves the part."""
        whole = is_whole(error)
        # The legend's own part is renamed first; then the folder as a whole can be moved.
        with self._legend.finishing(whole=whole):
            self._lines.close()
        if whole:
            move_label_maps(self.part, self.folder)
        else:
            _remove_if_empty(self.part)


class SemanticSink(LabelsSink):
    """Writes semantic maps: pixel value 0 is nothing, value k is prompt k-1.

    As `LabelsSink`; the legend names the prompts that are in each frame.
    """

    maps: frozenset[MapKind] = frozenset({"semantic"})

    def _pixels(self, result: FrameResult) -> NDArray[Any]:
        return result.semantic()

    def _legend_of(self, result: FrameResult, name: str) -> dict[str, Any]:
        del name
        pixels = np.bincount(result.semantic().ravel(), minlength=len(result.prompts) + 1)[1:]
        regions = [
            {"value": k + 1, "prompt": prompt.text, "pixels": int(pixels[k])}
            for k, prompt in enumerate(result.prompts)
            if pixels[k]
        ]
        return {"regions": regions}


def move_label_maps(part: Path, folder: Path) -> None:
    """Move label maps and, last, their legend; those that they replace are removed before.

    Raises:
        SinkError: a file cannot be moved.
    """
    with written(folder):
        if not folder.exists():
            part.rename(folder)  # all of them in one step
            return
        _remove_label_maps(folder)
        for name in (*_named(part / LEGEND), LEGEND):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).replace(folder / name)
        _remove_if_empty(part)


def _remove_label_maps(folder: Path) -> None:
    """Remove the label maps that a folder's legend names, and the legend."""
    for name in _named(folder / LEGEND):
        (folder / name).unlink(missing_ok=True)
    (folder / LEGEND).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir():
        for inside in (*folder.iterdir(), folder):
            with suppress(OSError):  # a file, or a folder with something in it
                inside.rmdir()


def _named(legend: Path) -> Iterator[str]:
    """The files that a legend names; what is no line of ours, as after a kill, is left out.

    A name that leads out of the folder is left out too: a legend may come from anyone.
    """
    if not legend.is_file():
        return
    with legend.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                name = Path(json.loads(line)["file"])
                if len(name.parts) == 2 and ".." not in name.parts and name.suffix == ".png":
                    yield str(name)
