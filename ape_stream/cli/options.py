"""Options that commands share: one name and one meaning wherever they appear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AsJson",
    "Canvas",
    "Config",
    "ConfigFile",
    "Device",
    "Dtype",
    "Live",
    "Metrics",
    "Model",
    "Output",
    "Overwrite",
    "Policy",
    "Prompt",
    "PromptsFile",
    "Sources",
    "Stream",
    "Threshold",
    "Tracker",
    "Wait",
]

Sources = Annotated[
    list[str], typer.Argument(help="Files, folders, patterns, devices or URLs; all at once.")
]
ConfigFile = Annotated[Path, typer.Argument(help="A TOML file that describes the run.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file for what these options leave open.")]
Prompt = Annotated[
    list[str] | None,
    typer.Option(help='What to look for: "red apple, dog face". May be repeated.'),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        help="A text file with one prompt a line; a comma is part of a prompt, a line that begins"
        " with # is a comment."
    ),
]
Model = Annotated[str | None, typer.Option(help="nano, or a model you imported.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str | None, typer.Option(help="Of the network: float32, bfloat16, float16.")]
Canvas = Annotated[int | None, typer.Option(help="Longest side that the network sees, pixels.")]
Threshold = Annotated[
    list[str] | None,
    typer.Option(help="Lowest score kept, 0..1; 'dog face=0.6' for one prompt. May be repeated."),
]
Tracker = Annotated[
    str | None, typer.Option(help="iou, another tracker, or none for no track ids.")
]
Policy = Annotated[
    str | None, typer.Option(help="Frames for which there is no time: every, newest or auto.")
]
Stream = Annotated[int | None, typer.Option(help="Which video stream of a file, from 0.")]
Live = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        help="Whether a URL is live (old frames are dropped) or read to its end, every frame;"
        " found out where neither is given.",
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(help="Seconds for which a URL that does not open yet is tried again."),
]
Output = Annotated[
    list[str] | None,
    typer.Option(
        help="out.mp4, out.json, out.jsonl, out.png, labels/, semantic/, panoptic/, window,"
        " web:..., zmq:...; {stream} in it stands for a stream's name. May be repeated."
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(help="HOST:PORT: numbers of the run for Prometheus (extra `metrics`)."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs of an earlier run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
