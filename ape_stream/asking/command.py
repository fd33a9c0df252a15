"""`ape-stream ask`: words for an index, answers as text, JSON and files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    index: Annotated[Path, typer.Argument(help="The folder that `ape-stream index` made.")],
    words: Annotated[
        list[str] | None, typer.Argument(help='What to look for: "fire engine, ladder".')
    ] = None,
    *,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Lowest score, 0..1; 'ladder=0.6' for one word. May be repeated. Default: that of"
            " the index."
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First time: seconds or hours:minutes:seconds.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Time from which on nothing is taken.")
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(help="Search this video only. May be repeated.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="In place of words, an example: 'VIDEO#FRAME:x1,y1,x2,y2' (a box, pixels) or"
            " 'VIDEO:TRACK' (an object of an answer). Similarities are not calibrated."
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="A text file with one word or phrase a line.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Embeddings made by `ape-stream prompts embed`.")
    ] = None,
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck",
            help="Run the network on the frames that are not certain, and on the best ones of"
            " sentences.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="Of the network: auto, cpu, cuda.")] = "auto",
    sources: Annotated[
        Path | None, typer.Option(help="Folder of the videos, where they were moved.")
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="sheet.png: the best frames of the best tracks. clip.mp4, out.jsonl, ...: the"
            " moments in which something was found. May be repeated."
        ),
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        list[str] | None,
        typer.Option(help="Annotation formats, as of `convert`: coco,cvat. Goes to --out-dir."),
    ] = None,
    save_frames: Annotated[
        str | None, typer.Option(help="jpg or png: save the frames with something found.")
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Folder of formats and frames.")] = Path("out"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask an index for words nobody thought of when it was made; the network is not loaded."""
    from ape_stream.asking.answering import Question, answer_of  # noqa: PLC0415 (numpy)
    from ape_stream.asking.videos import Videos  # noqa: PLC0415 (the same)
    from ape_stream.index import open as open_index  # noqa: PLC0415 (the same)

    files = _Files(out_dir, _listed(format), output or [], _suffix(save_frames), overwrite)
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
    from ape_stream.annotation.outputs import FRAMES, RESULTS  # noqa: PLC0415 (numpy, OpenCV)
    from ape_stream.asking import export  # noqa: PLC0415 (the same)

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
