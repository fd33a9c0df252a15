"""Options that commands share: one name and one meaning wherever they appear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Actors",
    "Address",
    "Apply",
    "AsJson",
    "Batch",
    "Blur",
    "Canvas",
    "Config",
    "ConfigFile",
    "Device",
    "Dtype",
    "End",
    "Engine",
    "Extend",
    "Format",
    "Fps",
    "Jobs",
    "Live",
    "MaxFrames",
    "Metrics",
    "Model",
    "OutDir",
    "Output",
    "Overlay",
    "Overwrite",
    "Pixelate",
    "Policy",
    "Prompt",
    "PromptsFile",
    "Resume",
    "RetryFailed",
    "SaveFrames",
    "Sources",
    "Stall",
    "Start",
    "Stream",
    "Stride",
    "Threshold",
    "Tracker",
    "Wait",
]

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, patterns, lists: clip by clip. Devices and URLs: all at once."
    ),
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
Model = Annotated[
    str | None, typer.Option(help="nano, street, a model you imported, or PERCEIVER:MODEL.")
]
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
Stream = Annotated[int | None, typer.Option(help="Which video stream of a file, from 0.", min=0)]
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

# For files alone, with --out-dir.

OutDir = Annotated[
    Path | None,
    typer.Option(help="Folder of a job over files; it goes on with what is there. Default: out."),
]
Start = Annotated[
    str | None,
    typer.Option(
        help="First time that is taken: seconds or hours:minutes:seconds, from the first frame."
    ),
]
End = Annotated[str | None, typer.Option(help="Time from which on nothing is taken.")]
Stride = Annotated[int | None, typer.Option(help="Take every how many-th frame.")]
Fps = Annotated[float | None, typer.Option(help="Take so many frames a second.")]
MaxFrames = Annotated[int | None, typer.Option(help="Most frames of a clip.")]
SaveFrames = Annotated[
    str | None,
    typer.Option(help="jpg or png: save the frames that are taken, as formats name them."),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        help="An annotation format over all clips, see `convert`, or none. May be repeated."
        " Default: coco."
    ),
]
Overlay = Annotated[
    bool,
    typer.Option(
        "--overlay/--no-overlay", help="Write a video and a sheet of images with all drawn in."
    ),
]
Jobs = Annotated[int | None, typer.Option(help="Clips at a time, each with a model of its own.")]
Batch = Annotated[int | None, typer.Option(help="Frames of a clip in one call of the model.")]
Stall = Annotated[
    float | None,
    typer.Option(
        help="Seconds without a sign of life after which a worker is ended. Default: 300."
    ),
]
Engine = Annotated[str | None, typer.Option(help="processes, or ray (extra `ray`).")]
Actors = Annotated[int | None, typer.Option(help="With --engine ray: workers with a model.")]
Address = Annotated[
    str | None, typer.Option(help="With --engine ray: a running cluster; it shares the folders.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on (the default); an error where nothing was begun.")
]
Extend = Annotated[
    bool, typer.Option("--extend", help="Go on though clips were added or taken away.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try clips again that failed before.")
]
Apply = Annotated[
    Path | None,
    typer.Option(help="A review.json of the report page: leave out what was rejected there."),
]
Blur = Annotated[
    list[str] | None,
    typer.Option(help='Videos show these prompts blurred, and nothing drawn in: "face, plate".'),
]
Pixelate = Annotated[list[str] | None, typer.Option(help="The same, in square cells.")]
