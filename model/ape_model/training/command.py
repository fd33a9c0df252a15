"""`ape-stream train`: a recipe, or the user's own images, to weights."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ape_model.commands.common import one_line_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["train"]

RECIPES = Path(__file__).parent / "recipes"


def train(
    out: Annotated[Path, typer.Option(help="Folder for states, log and weights.")],
    config: Annotated[Path | None, typer.Option(help="A recipe (TOML).")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your images: a COCO file, a folder of Pascal VOC, or a data.yaml of YOLO."
        ),
    ] = None,
    images: Annotated[  # the second name is the former one, kept for one release
        Path | None, typer.Option("--images", "--pictures", help="Folder of the images of --data.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Model to start from; without it, random weights.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train nano, or fine-tune it on your images; an interrupted run resumes when started again.

    The result is a model: use it with --model OUT. With several processes or GPUs: torchrun
    --nproc-per-node N -m ape_model.training.command --out OUT ...
    """
    from ape_model.training.train import TrainOptions  # noqa: PLC0415 (torch takes seconds)
    from ape_model.training.train import train as run  # noqa: PLC0415

    recipe = config or RECIPES / ("nano.toml" if data is None else "finetune.toml")
    options = TrainOptions(recipe, out, data, images, init, steps, seed, device)
    with one_line_errors(), _processes(device) as report:
        run(options, report)


@contextmanager
def _processes(device: str) -> Iterator[Callable[[str], None]]:
    """Join the other processes if torchrun started this one; only the first one reports."""
    if "RANK" not in os.environ:
        yield typer.echo
        return
    import torch  # noqa: PLC0415

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # the device of "cuda" from here on
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield typer.echo if os.environ["RANK"] == "0" else _silent
    finally:
        torch.distributed.destroy_process_group()


def _silent(_: str) -> None:
    """Report nothing."""


if __name__ == "__main__":
    typer.run(train)
