"""`ape-stream models`: the models on this machine, and how to get more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from ape_model.commands.common import one_line_errors, print_json, print_table, size

if TYPE_CHECKING:
    from ape_model.weights.import_official import ImportReport

__all__ = [
    "app",
    "import_",
    "info",
    "list_",
    "pull",
]

app = typer.Typer(
    no_args_is_help=True,
    help="List, import and download the weights of models.",
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model; its variant by default.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a model that exists already.")]


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """List the models on this machine and those that can be downloaded."""
    from ape_model.weights.registry import list_models  # noqa: PLC0415 (torch takes seconds)

    lines = list_models()
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    print_table(
        ("model", "variant", "state", "vision", "text", "knows"),
        [
            (
                line.name,
                line.variant,
                line.state,
                size(line.vision_bytes),
                size(line.text_bytes),
                line.knows,
            )
            for line in lines
        ],
    )


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    *,
    as_json: Json = False,
) -> None:
    """Show where a model's files are stored and what they were made from."""
    from ape_model.io.safetensors_io import read_metadata  # noqa: PLC0415 (torch takes seconds)
    from ape_model.weights.built_in import ASSETS, BUILT_IN  # noqa: PLC0415
    from ape_model.weights.registry import find_model  # noqa: PLC0415

    with one_line_errors():
        files = find_model(model)
        label = read_metadata(files.vision)
    content = {
        "name": files.name,
        "variant": files.variant,
        "vision": str(files.vision),
        "text": None if files.text is None else str(files.text),
        "text_tower": files.text_tower,
        "text_sha256": files.text_digest,
        "vocabulary": len(files.vocabulary),
        "origin": label.get("origin"),
        "origin_sha256": label.get("origin_sha256"),
    }
    if files.vision.parent == ASSETS:
        one = BUILT_IN[files.name]
        content |= {"knows": one.knows, "licence": one.licence, "card": one.card}
    if as_json:
        print_json(content)
    else:
        print_table(("", ""), [(key, str(value)) for key, value in content.items() if value])


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="model_final.pth of a released model.")],
    *,
    variant: Annotated[str, typer.Option(help="Which released model it is: A, B, C, D or Ti.")],
    name: Name = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files, instead of the folder of models.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Import an official checkpoint: checked, without its optimizer, vision and text in two files.

    The file is read without running anything in it.
    """
    with one_line_errors():
        _import(checkpoint, variant, output or _folder_of(name or variant), force, as_json)


@app.command()
def pull(
    variant: Annotated[str, typer.Argument(help="A, B, C, D or Ti.")],
    *,
    name: Name = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Download a released checkpoint (2 to 6 GB, resumable) and import it."""
    from ape_model.weights.hub import fetch  # noqa: PLC0415
    from ape_model.weights.import_official import check_target  # noqa: PLC0415 (torch takes seconds)

    with one_line_errors():
        folder = _folder_of(name or variant)
        check_target(folder, replace=force)  # before gigabytes are downloaded in vain
        _import(fetch(variant), variant, folder, force, as_json)


def _folder_of(name: str) -> Path:
    from ape_model.weights.registry import check_name, models_root  # noqa: PLC0415 (torch takes seconds)

    return models_root() / check_name(name)


def _import(checkpoint: Path, variant: str, folder: Path, force: bool, as_json: bool) -> None:  # noqa: FBT001
    from ape_model.weights.import_official import import_checkpoint  # noqa: PLC0415 (torch takes seconds)

    report = import_checkpoint(checkpoint, variant, folder, replace=force)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)


def _print_report(report: ImportReport) -> None:
    typer.echo(f"{report.origin} is a whole APE-{report.variant} (SHA-256 {report.origin_sha256})")
    for part in (report.vision, report.text):
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in part.dtypes.items())
        typer.echo(
            f"  {part.file}: {part.tensors} tensors ({dtypes}), {part.parameters / 1e6:,.1f} M"
            f" parameters, {size(part.bytes)}"
        )
    typer.echo(
        f"  {report.aliases} keys were second names, {report.ignored} are recomputed or for"
        f" training only; dropped: {', '.join(report.dropped) or 'nothing'}"
    )
