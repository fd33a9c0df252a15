"""`ape-stream world`: write scenes and videos of the drawn world to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ape_stream.tables import read_size

__all__ = ["app", "export", "video"]

app = typer.Typer(help="Write scenes or videos of the drawn world to disk.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder to write to; made if it does not exist.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same pixels.")]
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")]


@app.command()
def export(
    out: Out,
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 100,
    seed: Seed = 0,
    size: Size = "256x256",
) -> None:
    """Write scenes as a COCO data set (images/, instances.json, captions.json)."""
    from ape_model.world.coco import export_coco  # noqa: PLC0415 (OpenCV and numpy)
    from ape_model.world.world import World  # noqa: PLC0415

    try:
        path = export_coco(
            World(), out, range(seed, seed + scenes), read_size(size, "--size", typer.BadParameter)
        )
    except OSError as error:
        raise typer.BadParameter(f"cannot write {out}: {error.strerror or error}") from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(path)


@app.command()
def video(
    out: Out,
    frames: Annotated[int, typer.Option(min=1, help="How many frames.")] = 150,
    fps: Annotated[float, typer.Option(help="Frames per second of the world's time.")] = 30.0,
    seed: Seed = 0,
    size: Size = "320x240",
) -> None:
    """Write a video as numbered PNG files."""
    from ape_model.world.coco import write_image  # noqa: PLC0415 (OpenCV and numpy)
    from ape_model.world.world import World  # noqa: PLC0415

    try:
        moving = World().video(seed, read_size(size, "--size", typer.BadParameter), fps=fps)
        out.mkdir(parents=True, exist_ok=True)
        for index in range(frames):
            write_image(out / f"{index:06d}.png", moving.scene(index))
    except OSError as error:
        raise typer.BadParameter(f"cannot write {out}: {error.strerror or error}") from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(out)
