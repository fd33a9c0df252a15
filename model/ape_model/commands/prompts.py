"""`ape-stream prompts`: embeddings made in advance, for machines without a text tower."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from ape_model.commands.common import one_line_errors, print_json, print_table, progress_bar
from ape_model.errors import PromptTextError

if TYPE_CHECKING:
    from ape_model.text.cache import CachedPrompt

__all__ = [
    "app",
    "embed",
    "list_",
]

app = typer.Typer(
    no_args_is_help=True, help="Embed prompts in advance, and list them.", add_completion=False
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def embed(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File of embeddings (bank) to write.")
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Prompts, separated by commas; may be repeated."),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="A text file, one prompt per line; commas are kept.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "nano",
    pooling: Annotated[
        str,
        typer.Option(
            help="eot: state of the end token, as the released models; mean: of all tokens."
        ),
    ] = "eot",
    device: Annotated[
        str, typer.Option(help="Where the text tower runs: cpu, cuda; auto takes a GPU if any.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write a file of embeddings (bank), to run a model without its text weights."""
    from ape_model.loading import open_embedder, parse_pooling  # noqa: PLC0415
    from ape_model.text.embedding_file import EmbeddingFile  # noqa: PLC0415 (torch takes seconds)
    from ape_model.weights.registry import find_model  # noqa: PLC0415
    from ape_stream.devices import parse_device  # noqa: PLC0415
    from ape_stream.values.texts import clean_text  # noqa: PLC0415

    with one_line_errors(), progress_bar("embedding") as progress:
        given = _split(prompt or []) + _read_lines(prompts_file)
        if not given:
            raise PromptTextError("no prompt given: --prompt 'red apple, dog face'")
        texts = tuple(dict.fromkeys(clean_text(text) for text in given))
        embedder = open_embedder(
            find_model(model), parse_device(device), pooling=parse_pooling(pooling)
        )
        bank = EmbeddingFile(texts, embedder.embed(texts, progress), embedder.space)
        bank.save(output)
    content = {"file": str(output), "prompts": len(texts), "width": bank.width}
    if as_json:
        print_json(content)
    else:
        typer.echo(f"{output}: {len(texts)} prompts of {content['width']} numbers")


@app.command("list")
def list_(
    bank: Annotated[
        Path | None,
        typer.Argument(help="A file of embeddings; without it, the cache of this user."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """List the prompts of a file of embeddings, or of the cache."""
    from ape_model.text.cache import (  # noqa: PLC0415
        CachedPrompt,
        EmbeddingCache,
        cache_root,
    )
    from ape_model.text.embedding_file import EmbeddingFile  # noqa: PLC0415 (torch takes seconds)

    with one_line_errors():
        if bank is None:
            known = list(EmbeddingCache(cache_root()))
        else:
            whole = EmbeddingFile.load(bank)
            known = [CachedPrompt(text, whole.space) for text in whole.texts]
    if as_json:
        print_json([{"text": entry.text, **asdict(entry.space)} for entry in known])
    else:
        _print(known)


def _print(known: list[CachedPrompt]) -> None:
    counts = Counter(entry.space for entry in known)
    print_table(
        ("prompt", "text tower", "arithmetic", "pooling"),
        [(e.text, e.space.tower[:12], e.space.dtype, e.space.pooling) for e in known],
    )
    typer.echo(f"{len(known)} prompts of {len(counts)} text towers")


def _split(lines: list[str]) -> list[str]:
    return [part.strip() for line in lines for part in line.split(",") if part.strip()]


def _read_lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptTextError(f"{path} cannot be read as text: {reason}") from error
    return [line.strip() for line in lines if line.strip()]
