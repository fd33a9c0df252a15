"""Convert records files into annotation formats, without a model."""

from __future__ import annotations

import json
from array import array
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ape_stream.errors import ConfigError, UsageError, reason_of
from ape_stream.formats.records import (
    RESULTS,
    FrameRecord,
    JobRecord,
    Record,
    VideoRecord,
    parse_record,
)
from ape_stream.formats.registry import open_writer
from ape_stream.values.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ape_stream.formats.writer import FormatWriter

__all__ = ["Records", "convert"]


def convert(
    paths: Sequence[Path],
    formats: Iterable[str],
    out_dir: Path,
    *,
    val: Sequence[str] = (),
    overwrite: bool = False,
) -> list[FormatWriter]:
    """Write records files in some formats, each into `<out_dir>/<format>`.

    Videos are written in the order of their names and frames in theirs: the output depends on what
    the records say, not on the order in which streams of a run took turns.

    Args:
        paths: The records files; together they are one job. A folder stands for the records of
            all clips in it, as `annotate` leaves them.
        formats: Names in `FORMATS`.
        out_dir: The folder above.
        val: Patterns of video names; these videos are the validation split.
        overwrite: Replace what an earlier call made.

    Returns:
        The writers, for their paths, counts and losses.

    Raises:
        UsageError: a file cannot be read, or no video fits a pattern.
        ConfigError: a line is no record, or a format cannot be written there.
        SinkError: a file cannot be written.
    """
    records = Records(_files(paths))
    videos = [_split(video, val) for video in records.videos]
    for pattern in val:
        if not any(fnmatchcase(video.name, pattern) for video in videos):
            names = ", ".join(video.name for video in videos)
            raise UsageError(f"no video is called {pattern!r}; there are: {names:.200}")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(open_writer(name, out_dir, records.job, overwrite=overwrite))
            for name in dict.fromkeys(formats)
        ]
        for video in videos:
            _write_video(writers, video, records.frames(video.name))
    return writers


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob(RESULTS)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"there is no {RESULTS} in {path}: name the folder of a job, or files")
        files += inside
    return files


def _split(video: VideoRecord, val: Sequence[str]) -> VideoRecord:
    chosen = any(fnmatchcase(video.name, pattern) for pattern in val)
    return replace(video, split="val") if chosen else video


def _write_video(
    writers: Sequence[FormatWriter], video: VideoRecord, frames: Iterable[FrameRecord]
) -> None:
    for writer in writers:
        writer.begin_video(video)
    for frame in frames:
        for writer in writers:
            writer.frame(frame)
    for writer in writers:
        writer.end_video()


@dataclass
class _Stream:
    """Where the frames of one video are."""

    first: FrameRecord
    places: array[int] = field(default_factory=lambda: array("q"))
    """Of each frame its number, file, offset and line, one after the other."""


class Records:
    """Records files as one job: every video with its frames, in any order of their lines.

    A first pass notes where each line is (32 bytes a frame); frames are read when asked for.

    Args:
        paths: The files. A video's frames may be spread over several.

    Raises:
        UsageError: a file cannot be read, or there is nothing in any.
        ConfigError: a line is no record, or two contradict each other.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._job: JobRecord | None = None
        self._videos: dict[str, VideoRecord] = {}
        self._streams: dict[str, _Stream] = {}
        self._prompts: dict[str, int] = {}  # the lowest id of each text
        for number, path in enumerate(paths):
            with _reading(path) as lines:
                self._scan(number, lines)
        if not self._streams and not self._videos:
            raise UsageError(f"there is no record in {', '.join(map(str, paths))}")

    def _scan(self, number: int, lines: IO[bytes]) -> None:
        offset = 0
        for at, line in enumerate(lines, start=1):
            where = self._where(number, at)
            try:
                value = json.loads(line)
                # Frames are many: each is checked when it is read again.
                place = (value["frame"], number, offset, at)
                self._note_frame(value, line, where, place)
            except (ValueError, TypeError, KeyError, RecursionError):
                self._note(parse_record(line, where), where)
            offset += len(line)

    def _where(self, number: int, line: int) -> str:
        return f"{self._paths[number]}: line {line}"

    def _note_frame(self, value: Any, line: bytes, where: str, place: tuple[int, ...]) -> None:
        name = value["stream"]
        if name not in self._streams:
            first = parse_record(line, where)
            if not isinstance(first, FrameRecord):
                raise TypeError
            self._streams[name] = _Stream(first)
        self._streams[name].places.extend(place)
        for instance in value["instances"]:
            text, prompt_id = instance["prompt"], instance["prompt_id"]
            self._prompts[text] = min(prompt_id, self._prompts.get(text, prompt_id))

    def _note(self, record: Record, where: str) -> None:
        known: Record = record
        if isinstance(record, JobRecord):
            known = self._job = self._job or record
        elif isinstance(record, VideoRecord):
            known = self._videos.setdefault(record.name, record)
        if record != known:
            raise ConfigError(f"{where} contradicts what was said before: convert files one by one")

    @property
    def job(self) -> JobRecord:
        """The job; prompts that only frames know come last, by id and text."""
        job = self._job or JobRecord()
        known = {prompt.text for prompt in job.prompts}
        found = sorted(self._prompts.items(), key=lambda item: (item[1], item[0]))
        extra = tuple(Prompt(text) for text, _ in found if text not in known)
        return replace(job, prompts=job.prompts + extra)

    @property
    def videos(self) -> list[VideoRecord]:
        """All videos, by name."""
        names = sorted(self._videos.keys() | self._streams.keys())
        return [self._videos.get(name) or self._derived(name) for name in names]

    def _derived(self, name: str) -> VideoRecord:
        first = self._streams[name].first
        return VideoRecord(name, first.size[1], first.size[0], time_base=first.time_base)

    def frames(self, name: str) -> Iterator[FrameRecord]:
        """The frames of a video, in order.

        Raises:
            ConfigError: a line is no record, or a frame is there twice.
        """
        if name not in self._streams:
            return
        places = np.array(self._streams[name].places).reshape(-1, 4)
        last, current = -1, -1
        with ExitStack() as stack:
            for frame, number, offset, at in places[places[:, 0].argsort(kind="stable")].tolist():
                where = self._where(number, at)
                if frame == last:
                    raise ConfigError(f"{where}: frame {frame} of {name!r} is there twice")
                if number != current:
                    stack.close()
                    lines = stack.enter_context(_reading(self._paths[number]))
                lines.seek(offset)
                record = parse_record(lines.readline(), where)
                if not isinstance(record, FrameRecord):
                    raise ConfigError(f"{where} was changed while it was read")
                yield record
                last, current = frame, number


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as lines:
            yield lines
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
