"""An answer as files: records, annotation formats, saved frames, a contact sheet, clips."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_stream.annotation.outputs import FRAMES
from ape_stream.annotation.records import frame_line, frame_values
from ape_stream.files import PartFile, file_name, written
from ape_stream.formats.convert import convert
from ape_stream.formats.records import (
    RESULTS,
    JobRecord,
    VideoRecord,
    record_line,
    video_folder,
)
from ape_stream.index.answer import GAP_S
from ape_stream.plugins import make
from ape_stream.sinks.coco import package_version
from ape_stream.sinks.sheet import SheetSink
from ape_stream.specs import sink_plugin
from ape_stream.types import Frame, FrameResult, Instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ape_stream.asking.videos import Videos
    from ape_stream.formats.writer import FormatWriter
    from ape_stream.index import Answer, FoundFrame, Index
    from ape_stream.index.layout import Video

__all__ = ["save_frames", "write_formats", "write_output", "write_sheet"]

_ONE_STREAM: Final = ("mp4", "mkv")
"""Outputs that hold one video."""
_COLUMNS, _ROWS = 4, 3
"""Images of a contact sheet."""
_QUALITY: Final = {"jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], "png": []}


def write_formats(
    index: Index,
    answer: Answer,
    every: Iterable[FoundFrame],
    formats: Sequence[str],
    folder: Path,
    *,
    saved: str | None = None,
    overwrite: bool = False,
) -> list[FormatWriter]:
    """Write records of all frames that were searched, and annotation formats made of them.

    Args:
        index: That gave the answer.
        answer: The answer.
        every: All frames that were searched, by video and number.
        formats: Names of formats.
        folder: Where to; `results.jsonl` and a folder for each format.
        saved: Suffix of the images that found frames are saved as; None: they are not.
        overwrite: Replace what is there.

    Raises:
        ConfigError: a file exists already.
        SinkError: a file cannot be written.
    """
    found = {(one.video.id, one.index): one for one in answer.frames}
    records = PartFile(folder / RESULTS, overwrite=overwrite)
    records.open()
    whole = False
    try:
        with records.stream("wb") as stream:
            job = JobRecord(
                answer.prompts.prompts,
                index.store.manifest.model,
                index.store.manifest.threshold,
                package_version(),
            )
            stream.write(record_line(job).encode())
            begun: set[int] = set()
            for empty in every:
                if empty.video.id not in begun:
                    begun.add(empty.video.id)
                    stream.write(record_line(_video_record(empty.video)).encode())
                one = found.get((empty.video.id, empty.index))
                name = _image_name(one, saved) if one is not None else None
                result = _result(one or empty, answer, _blank(one or empty))
                with written(records.part):
                    stream.write(frame_line(frame_values(result, name)))
        whole = True
    finally:
        records.close(whole=whole)
    return convert([records.path], formats, folder, overwrite=overwrite) if formats else []


def _video_record(video: Video) -> VideoRecord:
    return VideoRecord(
        name=video.name,
        width=video.width,
        height=video.height,
        source=video.source,
        time_base=video.time_base,
        rate=video.rate,
    )


def _blank(one: FoundFrame) -> Frame:
    """A frame without an image of its own: one black pixel stands for all."""
    base = one.video.time_base
    return Frame(
        image=np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (*one.size, 3)),
        index=one.index,
        time_s=one.time_s,
        stream=one.video.name,
        origin=one.file,
        pts=one.pts,
        time_base=None if base is None else Fraction(*base),
    )


def _result(one: FoundFrame, answer: Answer, frame: Frame) -> FrameResult:
    found = one.instances() if len(one) else Instances.empty(frame.size)
    return FrameResult(frame, found, answer.prompts)


def save_frames(
    answer: Answer, videos: Videos, folder: Path, suffix: str, *, overwrite: bool = False
) -> int:
    """Save the frames in which something was found, named as formats name them.

    Returns:
        How many.

    Raises:
        UsageError: a video is not here.
        SinkError: a file cannot be written.
    """
    count = 0
    for one, frame in _with_images(answer.frames, videos):
        name = _image_name(one, suffix)
        if name is None:
            continue  # an image is a file already
        path = folder / FRAMES / name
        _, data = cv2.imencode(f".{suffix}", frame.image, _QUALITY[suffix])
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if overwrite else "xb") as file:
                file.write(data.tobytes())
        count += 1
    return count


def _image_name(one: FoundFrame, suffix: str | None) -> str | None:
    if suffix is None or one.file is not None:
        return None
    return f"{video_folder(one.video.name)}/{one.index:06d}.{suffix}"


def _with_images(
    frames: Sequence[FoundFrame], videos: Videos
) -> Iterator[tuple[FoundFrame, Frame]]:
    by_video: dict[int, dict[int, FoundFrame]] = {}
    for one in frames:
        by_video.setdefault(one.video.id, {})[one.index] = one
    for own in by_video.values():
        video = next(iter(own.values())).video
        for frame in videos.frames(video, own):
            yield own[frame.index], frame


def write_sheet(answer: Answer, videos: Videos, path: Path, *, overwrite: bool = False) -> int:
    """Write a contact sheet: the best frame of each of the best tracks, with that track drawn in.

    Returns:
        How many tracks it shows.

    Raises:
        ConfigError: the file exists already.
        UsageError: a video is not here.
    """
    tracks = answer.tracks[: _COLUMNS * _ROWS]
    best = [(track.frames[track.best], track.positions[track.best]) for track in tracks]
    images = {
        (one.video.id, one.index): frame
        for one, frame in _with_images([frame for frame, _ in best], videos)
    }
    shown = 0
    columns = max(1, min(_COLUMNS, len(best)))
    with SheetSink(str(path), columns=columns, rows=_ROWS, overwrite=overwrite) as sheet:
        for one, at in best:
            frame = images.get((one.video.id, one.index))
            if frame is not None:
                own = one.instances().select(np.array([at], np.intp))
                sheet.write(FrameResult(frame, own, answer.prompts))
                shown += 1
    return shown


def write_output(
    index: Index, answer: Answer, videos: Videos, spec: str, *, overwrite: bool = False
) -> list[str]:
    """Write the moments of an answer to an output of a run: clip.mp4, out.jsonl, labels/, ...

    A moment lasts from one frame with something found to the next, where that is within a second.

    Args:
        index: That gave the answer.
        answer: The answer.
        videos: Where frames are read.
        spec: The output; {stream} in it stands for a video's name.
        overwrite: Replace what is there.

    Returns:
        The files: a video holds one stream, so there is one for each video of the answer.
    """
    by_video: dict[int, list[FoundFrame]] = {}
    for one in answer.frames:
        by_video.setdefault(one.video.id, []).append(one)
    if len(by_video) > 1 and "{stream}" not in spec and sink_plugin(spec) in _ONE_STREAM:
        one_file = PurePath(spec)
        spec = str(one_file.with_name(f"{one_file.stem}-{{stream}}{one_file.suffix}"))
    with ExitStack() as stack:
        sinks: dict[str, Any] = {}
        for video_id, own in by_video.items():
            video = index.store.videos[video_id]
            path = spec.replace("{stream}", file_name(video.name))
            if path not in sinks:
                sink = make("sinks", sink_plugin(path), path, options={"overwrite": overwrite})
                sinks[path] = stack.enter_context(sink)
            found = {one.index: one for one in own}
            for frame in videos.frames(video, _moments(own)):
                here = found.get(frame.index)
                instances = here.instances() if here is not None else Instances.empty(frame.size)
                sinks[path].write(FrameResult(frame, instances, answer.prompts))
    return list(sinks)


def _moments(frames: Sequence[FoundFrame]) -> set[int]:
    """Numbers of frames, with those between two that are close in time."""
    numbers = {one.index for one in frames}
    for a, b in pairwise(frames):
        if 0 <= b.time_s - a.time_s <= GAP_S:
            numbers |= set(range(a.index, b.index))
    return numbers
