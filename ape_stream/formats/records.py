"""Records: what was found in videos, as typed values and as JSON Lines.

A records file has one JSON object a line:

    {"job": {"prompts": [{"text": "dog"}], "model": "nano", "threshold": 0.3, "version": "0.1.0"}}
    {"video": {"name": "clip", "source": "in/clip.mp4", "width": 1920, "height": 1080, ...}}
    {"stream": "clip", "frame": 0, "time_s": 0.0, "size": [1080, 1920], "instances": [...]}

A frame is the line that the output `jsonl` writes, so its files are records files too. Both other
kinds of line are optional: a job comes first, a video before its own frames. What they would say
is gathered from the frames where they are missing.

Field names are the keys of the file. Reading is strict: an unknown key or a wrong type is an error
that names file and line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

from ape_stream.errors import ConfigError, UsageError
from ape_stream.files import file_name
from ape_stream.tables import read_table
from ape_stream.values.prompts import Prompt  # noqa: TC001 (tables reads annotations while running)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "RESULTS",
    "FrameRecord",
    "InstanceRecord",
    "JobRecord",
    "Record",
    "RleRecord",
    "VideoRecord",
    "parse_record",
    "read_records",
    "record_line",
    "record_values",
    "video_folder",
    "write_records",
]

RESULTS: Final = "results.jsonl"
"""In the folder of a job's clip: what all formats are made of."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What made the results of all videos of a job."""

    prompts: tuple[Prompt, ...] = ()
    """What was looked for; category k + 1 of every format is prompt k."""
    model: str | None = None
    """The model's name."""
    threshold: float | None = None
    """Lowest score that was kept, 0..1, where a prompt has none of its own."""
    version: str | None = None
    """The version of ape_stream."""

    def __post_init__(self) -> None:
        """Check that no prompt is there twice: texts are the keys of categories."""
        texts = [prompt.text for prompt in self.prompts]
        if len(set(texts)) < len(texts):
            raise ValueError("a prompt is given twice")


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or one folder of images."""

    name: str
    """Unique in a job; frames name it as their `stream`. It may be a path: "siteA/clip"."""
    width: int
    """Of the frames, pixels, at least 1."""
    height: int
    """Of the frames, pixels, at least 1."""
    source: str | None = None
    """The file or URL, as it was given."""
    time_base: tuple[int, int] | None = None
    """Numerator and denominator of the unit of `pts`, seconds."""
    frames: int | None = None
    """How many frames the video has, if known."""
    rate: tuple[int, int] | None = None
    """Frames per second that the container states, as a fraction."""

    split: Literal["train", "val", "test"] = "train"
    """Which part of a data set it belongs to, in formats that have parts."""

    def __post_init__(self) -> None:
        """Refuse what no format can hold."""
        if not self.name or self.width < 1 or self.height < 1:
            raise ValueError("a video has a name, and a width and a height of at least 1")
        if min(self.time_base or (1,)) < 1 or min(self.rate or (1,)) < 1:
            raise ValueError("time_base and rate are fractions of numbers of at least 1")


@dataclass(frozen=True, slots=True)
class RleRecord:
    """A mask of the whole frame as COCO's compressed run lengths."""

    size: tuple[int, int]
    """Height and width of the frame, pixels."""
    counts: str
    """Run lengths down the columns, in COCO's text form."""


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One region of one frame."""

    prompt: str
    """The prompt's text."""
    prompt_id: int
    """The prompt's position in the prompt set of its frame."""
    score: float
    """0..1."""
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in pixels of the frame, x2 and y2 exclusive."""
    track_id: int | None
    """From 1, unique in its video; None before the track is confirmed."""
    mask: RleRecord | None
    """The pixels; None from a model that gives boxes only."""


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame of one video, also where nothing was found in it."""

    stream: str
    """The name of the video."""
    frame: int
    """Position in the video from 0."""
    time_s: float
    """Presentation time, seconds."""
    size: tuple[int, int]
    """Height and width, pixels."""
    instances: tuple[InstanceRecord, ...]
    """What was found."""
    file: str | None = None
    """The image file it was read from; None for a video."""
    pts: int | None = None
    """Presentation time in units of the video's `time_base`, exact."""
    time_base: tuple[int, int] | None = None
    """That of the video, in files that have no line for it."""
    partial: str | None = None
    """In the last frame of a run that was cut short: why no more came."""

    @property
    def image(self) -> str:
        """The name of the frame's image: the file it was read from, or `<folder>/<frame>.jpg`."""
        return self.file or f"{video_folder(self.stream)}/{self.frame:06d}.jpg"


def video_folder(name: str) -> str:
    """The relative folder that all formats use for a video: its name, fit for a path."""
    return "/".join(map(file_name, name.strip("/").split("/")))


Record = JobRecord | VideoRecord | FrameRecord

_WRAPPED: dict[str, type[JobRecord | VideoRecord]] = {"job": JobRecord, "video": VideoRecord}


def record_values(record: Record) -> dict[str, Any]:
    """A record as values of JSON; those that are absent are left out."""
    values = asdict(record)
    if isinstance(record, FrameRecord):
        # Not in its instances: there a track id of null says that there is none yet.
        return {key: value for key, value in values.items() if value is not None}
    return cast("dict[str, Any]", _present(values))


def _present(values: Any) -> Any:
    """Without the keys whose value is None, at every level."""
    if isinstance(values, dict):
        return {key: _present(value) for key, value in values.items() if value is not None}
    return [_present(value) for value in values] if isinstance(values, tuple) else values


def record_line(record: Record) -> str:
    """A record as its line of a records file, with the line end."""
    value = record_values(record)
    for key, kind in _WRAPPED.items():
        if isinstance(record, kind):
            value = {key: value}
    return json.dumps(value, ensure_ascii=False) + "\n"


def parse_record(line: str | bytes, where: str) -> Record:
    """Read one line of a records file.

    Args:
        line: The line.
        where: What it is, for messages: "out.jsonl: line 3".

    Raises:
        ConfigError: it is no record.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is no record: {value!r:.80}")
    for key, kind in _WRAPPED.items():
        if value.keys() == {key}:
            return read_table(kind, value[key], f"{where}: {key}")
    return read_table(FrameRecord, value, where)


def read_records(path: Path) -> Iterator[Record]:
    """Every record of a file, in order; one line is in memory at a time.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: a line is no record.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield parse_record(line, f"{path}: line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def write_records(stream: IO[str], records: Iterable[Record]) -> None:
    """Append records to an open text file."""
    stream.writelines(map(record_line, records))
