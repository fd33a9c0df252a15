"""The command `ape-stream live`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ape_stream.cli import options as opt  # noqa: TC001 (typer reads annotations while running)

__all__ = ["live"]


def live(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    sources: opt.Sources,
    *,
    prompt: opt.Prompt = None,
    prompts_file: opt.PromptsFile = None,
    config: opt.Config = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.")] = 8008,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    tls: Annotated[
        str | None, typer.Option(help="CERT,KEY: files in PEM form; then it speaks https.")
    ] = None,
    public: Annotated[
        bool, typer.Option(help="Allow other machines to connect without encryption.")
    ] = False,
    tokens: Annotated[
        str | None, typer.Option(help="File of the tokens, made if missing; else new ones.")
    ] = None,
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    canvas: opt.Canvas = None,
    threshold: opt.Threshold = None,
    tracker: opt.Tracker = None,
    policy: opt.Policy = None,
    output: opt.Output = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Show cameras and videos in a browser, masks on top, and change the prompts there."""
    from dataclasses import replace  # noqa: PLC0415

    from ape_stream.cli import plan  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli.execute import execute  # noqa: PLC0415
    from ape_stream.config import OutputConfig  # noqa: PLC0415

    options = plan.Options(
        sources=sources,
        prompt=prompt or [],
        prompts_file=prompts_file,
        config=config,
        model={"model": model, "device": device, "dtype": dtype, "canvas": canvas},
        thresholds=threshold or [],
        tracker=tracker,
        policy=policy,
        output=output or [],
        overwrite=overwrite,
    )
    page: dict[str, Any] = {"browser": browser, "public": public}
    page |= {} if tls is None else {"tls": tls}
    page |= {} if tokens is None else {"tokens": tokens}
    name = f"[{host}]" if ":" in host else host
    planned = plan.from_options(options, default_outputs=())
    page_output = OutputConfig(f"web:{name}:{port}", options=page)
    planned = replace(planned, outputs=(*planned.outputs, page_output))
    execute(planned, as_json=as_json)
