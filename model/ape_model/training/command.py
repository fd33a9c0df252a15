"""`ape-stream train`: from a recipe, or a user's own pictures, to weights."""

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
    data: Annotated[Path | None, typer.Option(help="COCO instances; else the drawn world.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder of the data's pictures.")] = None,
    init: Annotated[str | None, typer.Option(help="Model whose weights to begin with.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train nano, or fine-tune it on your pictures; a run that was cut off goes on by itself.

    The result is a model: use it with --model OUT. With several processes or GPUs: torchrun
    --nproc-per-node N -m ape_model.training.command --out OUT ...
    """
    from ape_model.training.train import Order, run  # noqa: PLC0415 (torch takes seconds)

    recipe = config or RECIPES / ("nano.toml" if data is None else "finetune.toml")
    order = Order(recipe, out, data, pictures, init, steps, seed, device)
    with one_line_errors(), _processes(device) as say:
        run(order, say)


@contextmanager
def _processes(device: str) -> Iterator[Callable[[str], None]]:
    """Join the other processes where torchrun started this one; the first one speaks for all."""
    if "RANK" not in os.environ:
        yield typer.echo
        return
    import torch  # noqa: PLC0415

    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" means from here on
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield typer.echo if os.environ["RANK"] == "0" else _silent
    finally:
        torch.distributed.destroy_process_group()


def _silent(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    typer.run(train)
