"""Make whole files of the parts that a run left behind which was cut short."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import av
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ape_stream.errors import ConfigError, SinkError, TruncatedError, UsageError
from ape_stream.files import PART, PartFile, held, written
from ape_stream.sinks.coco import info, write_document
from ape_stream.sinks.jsonl import whole_lines
from ape_stream.sinks.labels import LEGEND, move_label_maps
from ape_stream.sinks.panoptic import write_panoptic
from ape_stream.sinks.video import FORMATS, encoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from av.container import InputContainer

__all__ = ["recover"]

_RECORDING = b"RRF2"
"""First bytes of a recording of rerun, since version .24."""
_CUT_SHORT = TruncatedError("recovered from a run that was cut short")


def recover(part: str | Path, *, overwrite: bool = False) -> tuple[Path, str]:
    """Make a whole file of what a run wrote, and remove the part.

    All but recordings of rerun are marked as partial inside (of lines, the last one has the key
    `partial`); lines that were cut off are left out.

    Args:
        part: What the run left: `out.json.part`, `out.mp4.part`, `labels.part/`, ...
        overwrite: Replace a file that has the final name.

    Returns:
        The file, and what it holds, in words.

    Raises:
        ConfigError: a run still writes the part, or the final name is taken.
        SinkError: it holds nothing, or cannot be written.
        UsageError: it is no part.
    """
    path = Path(part)
    final = path.with_name(path.name.removesuffix(PART))
    kind = "labels" if path.is_dir() else final.suffix.lower()
    if path.suffix == ".mcap" or any(path.glob("*.mcap")):
        raise UsageError(f"{path} is a bag: what a killed run wrote is read as it is")
    if path.suffix != PART or kind not in _KINDS:
        known = ", ".join(f"name{suffix}{PART}" for suffix in _KINDS if suffix != "labels")
        raise UsageError(f"{path} is not left from a run: give {known} or a folder{PART}")
    if not path.exists():
        raise UsageError(f"there is no {path}")
    if final.exists() and not overwrite:
        raise ConfigError(
            f"{final} exists already: move it away, or replace it with overwrite=True"
        )
    return final, _KINDS[kind](path, final)


def _json(part: Path, final: Path) -> str:
    with held(part):
        # Counted in a pass of its own: nothing is made of a part without a whole line.
        count = sum(1 for _ in _documented(part))
        _refuse_empty(part, count)
        write_document(final, lambda: _documented(part), info(_CUT_SHORT))
        _remove(part)
    return f"{count} frames"


def _documented(part: Path) -> Iterator[dict[str, Any]]:
    """The lines of a part of COCO json up to the first that is damaged."""
    lists = ("annotations", "categories")
    return takewhile(
        lambda line: (
            isinstance(line.get("image"), dict)
            and all(isinstance(line.get(key, []), list) for key in lists)
        ),
        whole_lines(part),
    )


def _jsonl(part: Path, final: Path) -> str:
    new = final.with_name(f"{final.name}.new")
    with held(part), written(new):
        count = sum(1 for _ in whole_lines(part))
        _refuse_empty(part, count)
        _copy_lines(part, new, count)
        new.replace(final)
        _remove(part)
    return f"{count} frames"


def _copy_lines(part: Path, new: Path, count: int) -> None:
    """Copy the whole lines, so many; the last one is marked."""
    with new.open("w", encoding="utf-8") as out:
        for number, line in enumerate(whole_lines(part), start=1):
            marked = {**line, "partial": str(_CUT_SHORT)} if number == count else line
            out.write(json.dumps(marked, ensure_ascii=False) + "\n")


def _video(part: Path, final: Path) -> str:
    """Copy every packet that can be read; nothing is encoded again."""
    # The suffix stays last: `_copy` chooses the container by it.
    new = final.with_name(f"{final.stem}.new{final.suffix}")
    with held(part), encoded(part):
        try:
            with av.open(str(part)) as source:
                count = _copy(source, new) if source.streams.video else 0
        except av.InvalidDataError as error:
            raise SinkError(f"{part} holds no frame that can be read") from error
        _refuse_empty(part, count)
        new.replace(final)
        _remove(part)
    return f"{count} frames"


def _copy(source: InputContainer, path: Path) -> int:
    name, options = FORMATS[path.suffix.lower()]
    count = 0
    with av.open(str(path), "w", format=name, options=options) as target:
        target.metadata["comment"] = f"partial: {_CUT_SHORT}"
        stream = target.add_stream_from_template(source.streams.video[0])
        try:
            for packet in source.demux(video=0):
                if packet.dts is not None:  # the last one only says that there is no more
                    packet.stream = stream
                    target.mux(packet)
                    count += 1
        except av.FFmpegError:  # the last fragment was cut off
            pass
    return count


def _image(part: Path, final: Path) -> str:
    with held(part):
        # The sheet is written at the very end: a killed run leaves an empty file.
        try:
            with Image.open(part) as image:
                image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise SinkError(f"{part} holds no whole image: there is nothing to recover") from error
        about = PngInfo()
        about.add_text("Comment", f"partial: {_CUT_SHORT}")
        new = final.with_name(f"{final.name}.new")
        with written(new):
            image.save(new, format="png", pnginfo=about)
            new.replace(final)
        _remove(part)
    return "the frames until then"


def _labels(part: Path, final: Path) -> str:
    legend = PartFile(part / LEGEND, overwrite=True)
    with held(legend.part), written(part):
        count = sum(1 for _ in whole_lines(legend.part))
        _refuse_empty(part, count)
        _copy_lines(legend.part, legend.path, count)
        # Locked until here; its folder is moved as a whole.
        _remove(legend.part)
        move_label_maps(part, final)
        write_panoptic(final, _CUT_SHORT)
    return f"{count} frames"


def _recording(part: Path, final: Path) -> str:
    """Give it its name: rerun reads a recording to where it was cut off."""
    with held(part), written(final):
        size = part.stat().st_size
        with part.open("rb") as file:
            begun = file.read(len(_RECORDING)) == _RECORDING
        _refuse_empty(part, int(begun))
        part.replace(final)
    return f"{size / 1e6:.1f} MB for rerun"


_KINDS = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".mp4": _video,
    ".mkv": _video,
    ".png": _image,
    ".rrd": _recording,
    "labels": _labels,
}


def _refuse_empty(part: Path, count: int) -> None:
    if not count:
        raise SinkError(f"{part} holds no whole frame: there is nothing to recover")


def _remove(part: Path) -> None:
    with written(part):
        part.unlink()
