"""Options of `ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "Bank",
    "Device",
    "End",
    "Format",
    "Index",
    "Like",
    "OutDir",
    "Output",
    "Overwrite",
    "PromptsFile",
    "Recheck",
    "SaveFrames",
    "Sources",
    "Start",
    "Threshold",
    "Video",
    "Words",
]

Index = Annotated[Path, typer.Argument(help="The folder that `ape-stream index` made.")]
Words = Annotated[list[str] | None, typer.Argument(help='What to look for: "fire engine, ladder".')]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        help="Lowest score, 0..1; 'ladder=0.6' for one word. May be repeated. Default: that of"
        " the index."
    ),
]
Start = Annotated[
    str | None, typer.Option("--from", help="First time: seconds or hours:minutes:seconds.")
]
End = Annotated[str | None, typer.Option("--to", help="Time from which on nothing is taken.")]
Video = Annotated[list[str] | None, typer.Option(help="Search this video only. May be repeated.")]
Like = Annotated[
    str | None,
    typer.Option(
        help="In place of words, an example: 'VIDEO#FRAME:x1,y1,x2,y2' (a box, pixels) or"
        " 'VIDEO:TRACK' (an object of an answer). Similarities are not calibrated."
    ),
]
PromptsFile = Annotated[
    Path | None, typer.Option(help="A text file with one word or phrase a line.")
]
Bank = Annotated[Path | None, typer.Option(help="Embeddings made by `ape-stream prompts embed`.")]
Recheck = Annotated[
    bool,
    typer.Option(
        "--recheck",
        help="Run the network on the frames that are not certain, and on the best ones of"
        " sentences.",
    ),
]
Device = Annotated[str, typer.Option(help="Of the network: auto, cpu, cuda.")]
Sources = Annotated[Path | None, typer.Option(help="Folder of the videos, where they were moved.")]
Output = Annotated[
    list[str] | None,
    typer.Option(
        help="sheet.png: the best frames of the best tracks. clip.mp4, out.jsonl, ...: the"
        " moments in which something was found. May be repeated."
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(help="Annotation formats, as of `convert`: coco,cvat. Goes to --out-dir."),
]
SaveFrames = Annotated[
    str | None, typer.Option(help="jpg or png: save the frames with something found.")
]
OutDir = Annotated[Path, typer.Option(help="Folder of formats and frames.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
