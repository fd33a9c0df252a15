"""Measure speed as ratios: the kernels, and whole frames."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ape_model.commands.common import one_line_errors, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ape_model.benchmark.frame import Cost, Form
    from ape_model.network.ape import Ape

__all__ = ["app", "maps", "model", "ops", "resize"]

VOCABULARIES: Final = (1, 1203, 10_000)
"""Numbers of cached prompts whose frames should cost the same."""

app = typer.Typer(no_args_is_help=True, help="Measure speed as ratios.", add_completion=False)


@app.command()
def ops(
    *,
    case: Annotated[
        str, typer.Option(help="small, encoder640, encoder1024, decoder900 or all.")
    ] = "small",
    dtype: Annotated[
        str, typer.Option(help="Dtype of the values: float32, float16, bfloat16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every backend.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per measurement.")] = False,
) -> None:
    """Deformable attention, forward: every backend compared with grid_sample."""
    from ape_cuda_ops import bench  # noqa: PLC0415 (torch takes seconds)

    bench.ops(
        case=case, dtype=dtype, device=device, repeats=repeats, threads=threads, as_json=as_json
    )


@app.command()
def resize(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per measurement.")] = False,
) -> None:
    """Frames of usual sizes resized for the network, compared with Pillow."""
    from ape_cuda_ops import bench  # noqa: PLC0415 (torch takes seconds)

    bench.resize(repeats=repeats, as_json=as_json)


@app.command()
def model(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    *,
    name: Annotated[
        str, typer.Option("--model", help="nano, A, B, C, D, Ti; weights not here are random.")
    ] = "nano",
    size: Annotated[
        int | None, typer.Option(help="Side of the square image, pixels; default: the model's own.")
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32 (the usual one), bfloat16, float16; repeatable."),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Number of prompts.")] = 1,
    sentences: Annotated[
        bool, typer.Option("--sentences", help="Prompts are sentences, fused with the image.")
    ] = False,
    vocabulary: Annotated[
        bool,
        typer.Option("--vocabulary", help="Compare 1, 1,203 and 10,000 names instead of forms."),
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: torch's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda; auto takes a GPU if any.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """A whole frame: the fast forms of a model against it as papers write it, stage by stage.

    The plain form takes minutes with the larger models on a CPU.
    """
    import torch  # noqa: PLC0415 (it takes seconds)

    from ape_model.benchmark import frame  # noqa: PLC0415
    from ape_stream.devices import parse_device, parse_dtype  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with one_line_errors():
            network, weights = frame.open_network(name, parse_device(device))
            dtypes = [parse_dtype(one) for one in dtype or ["float32"]]
            forms = _forms(network, dtypes, prompts, VOCABULARIES if vocabulary else ())
            side = size or network.config.canvas
            most = max(form.prompts for form in forms)
            image = frame.make_frame(network, side, most, sentences=sentences)
            costs = frame.measure(forms, image, repeats)
    finally:
        used = torch.get_num_threads()
        torch.set_num_threads(before)
    about = {
        "model": name,
        "weights": weights,
        "size": side,
        "prompts": most,
        "sentences": sentences,
        "device": _device_name(network),
        "threads": used,
        "repeats": repeats,
    }
    _print(about, costs, as_json=as_json)


@app.command()
def maps(
    *,
    name: Annotated[str, typer.Option("--model", help="Model that paints.")] = "nano",
    image: Annotated[
        Path | None, typer.Option(help="Image; default: a scene of the drawn world.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("-p", "--prompt", help="Names; default: those of the scene.")
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frame, pixels.")] = "1920x1080",
    canvas: Annotated[int, typer.Option(help="Longest side that the network sees, pixels.")] = 480,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median is reported.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Semantic and panoptic maps of a frame: what they cost beyond its masks, on the CPU."""
    from ape_model.benchmark import maps as bench  # noqa: PLC0415 (torch takes seconds)

    costs, about = bench.run(name, image, prompt, size, canvas, repeats, threads)
    if as_json:
        print_json({**about, **asdict(costs)})
        return
    typer.echo(", ".join(f"{key} {value}" for key, value in about.items()))
    typer.echo(f"all that follows the network, masks alone: {costs.masks:.1f} CPU ms")
    typer.echo(f"semantic map: {costs.semantic:.1f} CPU ms more")
    typer.echo(f"panoptic map: {costs.panoptic:.1f} CPU ms more")
    ratio = costs.owners_plain / costs.owners
    typer.echo(
        f"owner of every pixel: {costs.owners:.1f} CPU ms, {ratio:.1f}x as fast as every map"
        f" upsampled ({costs.owners_plain:.1f} CPU ms); they differ at {costs.differ} pixels"
    )


def _forms(
    network: Ape, dtypes: Sequence[torch.dtype], prompts: int, vocabularies: Sequence[int]
) -> list[Form]:
    """What takes turns; the baseline comes first."""
    from ape_model.benchmark.frame import Form, in_precision  # noqa: PLC0415 (torch)

    if vocabularies:
        fast = in_precision(network, dtypes[0])
        return [Form(f"{count} names", fast, count) for count in vocabularies]
    forms = [Form("reference", network, prompts, reference=True)]
    for dtype in dict.fromkeys(dtypes):
        name = str(dtype).removeprefix("torch.")
        forms.append(Form(name, in_precision(network, dtype), prompts))
    return forms


def _device_name(network: Ape) -> str:
    import torch  # noqa: PLC0415 (it takes seconds)

    device = next(network.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _print(about: dict[str, object], costs: Sequence[Cost], *, as_json: bool) -> None:
    if as_json:
        print_json({**about, "forms": [asdict(cost) for cost in costs]})
        return
    typer.echo(", ".join(f"{key} {value}" for key, value in about.items()))
    for cost in costs:
        peak = "" if cost.peak_bytes is None else f", at most {cost.peak_bytes / 1e9:.2f} GB held"
        typer.echo(
            f"{cost.form}: {cost.cpu_s:.2f} s CPU, {cost.wall_s:.2f} s, {cost.speedup:.2f}x{peak}"
        )
        typer.echo(
            "  differs by "
            + ", ".join(f"{name} {error:.1e}" for name, error in cost.errors.items())
        )
        for stage in cost.stages:
            ratio = "" if stage.speedup is None else f"{stage.speedup:8.2f}x"
            typer.echo(f"  {stage.stage:22} {stage.cpu_s:8.3f} s CPU {stage.wall_s:8.3f} s{ratio}")
