"""`ape-stream train`: a recipe, or the user's own images, to weights."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ape_model.commands.common import one_line_errors
from ape_model.training.errors import RecipeError
from ape_model.training.finetuning.mode import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ape_model.training.train import TrainOptions

__all__ = ["find_recipe", "train"]

RECIPES = Path(__file__).parent / "recipes"

RecipeFile = Annotated[
    Path | None, typer.Option(help="A recipe: a TOML file, or the name of one that ships.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Your images: a COCO file, a folder of Pascal VOC, or a data.yaml of YOLO; with a"
        " recipe of a released model, the folder of all its data sets."
    ),
]
Check = Annotated[
    bool,
    typer.Option(help="Prove the recipe of a released model on tiny copies of its data sets."),
]
Tuned = Annotated[
    Mode | None,
    typer.Option(help="Fine-tune a model of any size: what is learnt of --init on --data."),
]
Validation = Annotated[
    Path | None,
    typer.Option(help="Data set that the score is taken on; else a part of --data is held back."),
]
OldData = Annotated[
    Path | None,
    typer.Option(help="--mode: COCO file of what the model knew, to measure what it forgets."),
]
Bank = Annotated[
    Path | None, typer.Option(help="--mode: embeddings of `prompts embed`; else the cache.")
]
Backbone = Annotated[
    Path | None,
    typer.Option(
        help="A recipe of a released model: pre-trained weights of the backbone; the other ones"
        " are random, and --init gives its text tower alone."
    ),
]
Gigabytes = Annotated[
    float | None,
    typer.Option(min=0, help="--mode: most gigabytes; without it, what the device has left."),
]


def train(  # noqa: PLR0913, PLR0917 (options of a command)
    out: Annotated[Path | None, typer.Option(help="Folder for states, log and weights.")] = None,
    config: RecipeFile = None,
    data: Data = None,
    images: Annotated[  # the second name is the former one, kept for one release
        Path | None, typer.Option("--images", "--pictures", help="Folder of the images of --data.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Model to start from; nano with --data, else random weights.")
    ] = None,
    mode: Tuned = None,
    validation: Validation = None,
    old_data: OldData = None,
    bank: Bank = None,
    memory: Gigabytes = None,
    backbone: Backbone = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, instead of the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    *,
    check: Check = False,
) -> None:
    """Train nano, or fine-tune a model on your images; an interrupted run resumes when called.

    The result is a model: use it with --model OUT. With --mode, any model is fine-tuned, the
    released ones too: prompt learns the vectors of the words, head the heads, lora low-rank changes
    of encoder and decoder, full all weights. With several processes or GPUs: torchrun
    --nproc-per-node N -m ape_model.training.command --out OUT ...
    """
    if check:
        with one_line_errors():
            _check(config, seed)
        return
    if mode is not None:
        from ape_model.training.finetuning.run import FineTuneOptions, fine_tune  # noqa: PLC0415

        with one_line_errors(), _processes(device) as report:
            if init is None or data is None or out is None:
                raise RecipeError(
                    "--mode fine-tunes a model on images: give --init, --data and --out"
                )
            most = None if memory is None else int(memory * 1e9)
            own = FineTuneOptions(
                init, data, out, mode, config, images, validation, old_data, bank, most, steps,
                seed, device,
            )  # fmt: skip
            fine_tune(own, report)
        return
    from ape_model.training.train import TrainOptions  # noqa: PLC0415 (torch takes seconds)

    with one_line_errors(), _processes(device) as report:
        if out is None:
            raise RecipeError("give --out, the folder for states, log and weights")
        recipe = find_recipe(config or Path("nano" if data is None else "finetune"))
        chosen = TrainOptions(
            recipe, out, data, images, init, validation, steps, seed, device, backbone
        )
        _run(chosen, report)


def _run(options: TrainOptions, report: Callable[[str], None]) -> None:
    """Train a released model or nano, whichever the recipe describes."""
    from ape_model.training.official.recipe import is_official  # noqa: PLC0415 (torch: seconds)
    from ape_model.training.official.run import train_official  # noqa: PLC0415
    from ape_model.training.train import train as train_nano  # noqa: PLC0415

    run = train_official if is_official(options.recipe) else train_nano
    run(options, report)


def _check(config: Path | None, seed: int | None) -> None:
    """Prove a recipe; report its data sets and what was found.

    Raises:
        ModelError: it is no recipe of a released model, or the check failed.
    """
    from ape_model.training.official.check import check_recipe  # noqa: PLC0415 (torch: seconds)
    from ape_model.training.official.recipe import (  # noqa: PLC0415
        is_official,
        read_official_recipe,
    )

    recipe = find_recipe(config or Path("ape_D"))
    if not is_official(recipe):
        raise RecipeError(
            f"--check is for recipes of released models, and {recipe.stem} is of nano"
        )
    check_recipe(read_official_recipe(recipe, seed=seed), typer.echo)


def find_recipe(given: Path) -> Path:
    """Find a recipe: a file, or the bare name of one that ships.

    Raises:
        RecipeError: there is neither.
    """
    if given.is_file():
        return given
    shipped = {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}
    if str(given) not in shipped:
        raise RecipeError(f"{given} is no file and no recipe that ships: {', '.join(shipped)}")
    return shipped[str(given)]


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
