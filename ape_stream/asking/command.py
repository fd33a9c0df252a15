"""`ape-stream ask`: words for an index, answers as text, JSON and files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ape_stream.asking import options as opt  # noqa: TC001 (typer reads annotations while running)
from ape_stream.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.asking.videos import Videos
    from ape_stream.index import Answer, Index

__all__ = ["ask"]

EXIT_INCOMPLETE = 3
"""Exit code where parts of the index could not be read; the rest was answered."""


@dataclass(frozen=True, slots=True)
class _Files:
    """What is written of an answer."""

    out: Path
    formats: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    suffix: str | None = None
    overwrite: bool = False


def ask(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    index: opt.Index,
    words: opt.Words = None,
    *,
    threshold: opt.Threshold = None,
    start: opt.Start = None,
    end: opt.End = None,
    video: opt.Video = None,
    like: opt.Like = None,
    prompts_file: opt.PromptsFile = None,
    bank: opt.Bank = None,
    recheck: opt.Recheck = False,
    device: opt.Device = "auto",
    sources: opt.Sources = None,
    output: opt.Output = None,
    format: opt.Format = None,  # noqa: A002 (the option's name)
    save_frames: opt.SaveFrames = None,
    out_dir: opt.OutDir = Path("out"),
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Ask an index for words nobody thought of when it was made; the network is not loaded."""
    from ape_stream.asking.answering import Question, answer_of  # noqa: PLC0415 (numpy)
    from ape_stream.asking.videos import Videos  # noqa: PLC0415 (the same)
    from ape_stream.formats.registry import check_formats  # noqa: PLC0415 (the same)
    from ape_stream.index import open as open_index  # noqa: PLC0415 (the same)

    files = _Files(out_dir, _listed(format), output or [], _suffix(save_frames), overwrite)
    check_formats(files.formats)
    question = Question(
        words=words or [],
        prompts_file=prompts_file,
        thresholds=threshold or [],
        start=start,
        end=end,
        videos=video or None,
        like=like,
    )
    found = open_index(index, bank=bank)
    videos = Videos(index, sources)
    answer = answer_of(found, question)
    if recheck:
        answer = _rechecked(found, answer, videos, device)
    written = _write(found, answer, question.range(), videos, files)
    _report(answer, written, as_json=as_json)
    if not answer.frames and (files.suffix or files.outputs) and not as_json:
        typer.echo("nothing was found: no image and no output is written")
    if answer.missing:
        raise typer.Exit(EXIT_INCOMPLETE)


def _listed(given: Sequence[str] | None) -> list[str]:
    return [name.strip() for line in given or () for name in line.split(",") if name.strip()]


def _suffix(given: str | None) -> str | None:
    if given not in (None, "jpg", "png"):
        raise UsageError(f"--save-frames is jpg or png, not {given!r}")
    return given


def _rechecked(index: Index, answer: Answer, videos: Videos, device: str) -> Answer:
    from ape_stream.asking import recheck  # noqa: PLC0415 (numpy)

    if answer.recheck or any(mode.startswith("sentence") for mode in answer.modes):
        return recheck.recheck(index, answer, recheck.open_network(index, device), videos)
    return answer


def _write(
    index: Index,
    answer: Answer,
    span: tuple[float | None, float | None, list[str] | None],
    videos: Videos,
    files: _Files,
) -> list[Path]:
    """Write what is asked for; returns the names."""
    if not (files.suffix or files.formats or files.outputs):
        return []
    from ape_stream.annotation.outputs import FRAMES  # noqa: PLC0415 (numpy, OpenCV)
    from ape_stream.asking import export  # noqa: PLC0415 (the same)
    from ape_stream.formats.records import RESULTS  # noqa: PLC0415 (the same)

    made: list[Path] = []
    overwrite = files.overwrite
    if files.suffix is not None and export.save_frames(
        answer, videos, files.out, files.suffix, overwrite=overwrite
    ):
        made.append(files.out / FRAMES)
    if files.formats:
        every = index.frames(*span)
        writers = export.write_formats(
            index,
            answer,
            every,
            files.formats,
            files.out,
            saved=files.suffix,
            overwrite=overwrite,
        )
        made += [files.out / RESULTS, *(Path(writer.path) for writer in writers)]
    for spec in files.outputs:
        if not spec.lower().endswith(".png"):
            named = export.write_output(index, answer, videos, spec, overwrite=overwrite)
            made += map(Path, named)
        elif export.write_sheet(answer, videos, Path(spec), overwrite=overwrite):
            made.append(Path(spec))
    return made


def _report(answer: Answer, files: Sequence[Path], *, as_json: bool) -> None:
    from ape_stream.asking.view import lines_of  # noqa: PLC0415 (numpy)

    if as_json:
        values = {**answer.to_json(), "files": [str(path) for path in files]}
        typer.echo(json.dumps(values))
        return
    for line in lines_of(answer):
        typer.echo(line)
    for path in files:
        typer.echo(path)
