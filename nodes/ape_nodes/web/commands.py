"""The commands `ape-stream live` and `bench live`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ape_stream.cli import options as opt  # noqa: TC001 (typer reads annotations while running)

if TYPE_CHECKING:
    from ape_stream.config import OutputConfig

__all__ = ["bench_live", "live"]

Host = Annotated[str, typer.Option(help="Address to listen at.")]
Port = Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.")]
Browser = Annotated[bool, typer.Option(help="Open the page in the browser.")]
Tls = Annotated[str | None, typer.Option(help="CERT,KEY: files in PEM form; it then speaks https.")]
Public = Annotated[bool, typer.Option(help="Let other machines connect without encryption.")]
TokensFile = Annotated[
    str | None, typer.Option(help="File of the tokens, made if missing; else new ones are drawn.")
]
Hosts = Annotated[str, typer.Option(help="Further names of this server, with commas between.")]
Folder = Annotated[str | None, typer.Option(help="Where snapshots and recordings may be written.")]
EventsFile = Annotated[
    str | None, typer.Option(help="File for events of zones, one JSON object a line.")
]
Webhook = Annotated[str | None, typer.Option(help="URL that events are POSTed to.")]
Mqtt = Annotated[
    str | None, typer.Option(help="mqtt://HOST:PORT/TOPIC that events are published to.")
]
Blur = Annotated[
    str, typer.Option(help="Prompts whose regions are made unrecognisable: face, number plate.")
]


def live(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    sources: opt.Sources,
    *,
    prompt: opt.Prompt = None,
    prompts_file: opt.PromptsFile = None,
    config: opt.Config = None,
    host: Host = "127.0.0.1",
    port: Port = 8008,
    browser: Browser = True,
    tls: Tls = None,
    public: Public = False,
    tokens: TokensFile = None,
    hosts: Hosts = "",
    folder: Folder = None,
    events: EventsFile = None,
    webhook: Webhook = None,
    mqtt: Mqtt = None,
    blur: Blur = "",
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    canvas: opt.Canvas = None,
    threshold: opt.Threshold = None,
    tracker: opt.Tracker = None,
    policy: opt.Policy = None,
    wait: opt.Wait = None,
    output: opt.Output = None,
    metrics: opt.Metrics = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Show cameras, videos and images in a browser, masks on top; change the prompts there."""
    from ape_nodes.web.still import still_of  # noqa: PLC0415 (cv2)
    from ape_stream.cli import plan  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli.execute import execute  # noqa: PLC0415

    options = plan.Options(
        sources=sources,
        prompt=prompt or [],
        prompts_file=prompts_file,
        config=config,
        model={"model": model, "device": device, "dtype": dtype, "canvas": canvas},
        thresholds=threshold or [],
        tracker=tracker,
        policy=policy,
        source={"wait_s": wait},
        output=output or [],
        metrics=metrics,
        overwrite=overwrite,
    )
    page = {
        "browser": browser, "public": public, "tls": tls, "tokens": tokens, "folder": folder,
        "events": events, "webhook": webhook, "mqtt": mqtt, "blur": blur, "hosts": hosts,
    }  # fmt: skip
    planned = plan.from_options(options)
    shown = tuple(replace(source, source=still_of(source.source)) for source in planned.sources)
    outputs = (*planned.outputs, _page_output(host, port, page))
    execute(replace(planned, sources=shown, outputs=outputs), as_json=as_json)


def _page_output(host: str, port: int, given: dict[str, Any]) -> OutputConfig:
    from ape_stream.config import OutputConfig  # noqa: PLC0415 (with the others)

    name = f"[{host}]" if ":" in host else host
    options = {option: value for option, value in given.items() if value is not None}
    return OutputConfig(f"web:{name}:{port}", options=options)


def bench_live(
    *,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each is measured.")] = 8.0,
    fps: Annotated[
        float, typer.Option(min=1.0, help="Images a second; fewer where others use the processor.")
    ] = 30.0,
    soak: Annotated[
        float | None,
        typer.Option(min=1.0, help="Seconds: watch APE-Nano on the screen for so long instead."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per measurement.")] = False,
) -> None:
    """Cost of the live page's server, ages of images at viewers and on the screen, and its bars.

    Takes two minutes; ages on the screen need a Chromium.
    """
    if soak is not None:
        from ape_nodes.web.bench import soak as long  # noqa: PLC0415 (aiohttp)

        long.live(seconds=soak, fps=fps, as_json=as_json)
        return
    from ape_nodes.web.bench import report  # noqa: PLC0415 (aiohttp, numpy)

    report.live(seconds=seconds, fps=fps, as_json=as_json)
