"""`ape-stream train-text`: nano's text tower, distilled from a pretrained sentence encoder."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import Annotated

import typer

from ape_model.commands.common import one_line_errors

__all__ = ["train_text"]


def train_text(
    teacher: Annotated[Path, typer.Option(help="Folder of a sentence-transformers model.")],
    cldr: Annotated[Path, typer.Option(help="annotations/en.xml of Unicode CLDR: names.")],
    out: Annotated[Path, typer.Option(help="File of weights to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Batches of the run.")] = 3000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same tower.")] = 0,
) -> None:
    """Distil a sentence encoder into a text tower, and check that it distinguishes names.

    It needs the extra `distil`. The tower is written only if it distinguishes the names of the
    drawn world. A recipe takes it by its key `text`.
    """
    from ape_model.training.text_tower.distillation import DistilConfig  # noqa: PLC0415 (torch takes seconds)
    from ape_model.training.text_tower.run import train_tower  # noqa: PLC0415

    with one_line_errors():
        train_tower(teacher, cldr, out, DistilConfig(steps=steps, seed=seed), typer.echo)
