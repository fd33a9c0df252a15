"""What all parts of an index share, made once: its manifest, head and reference words."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.batch.shards import write_whole
from ape_stream.errors import ConfigError
from ape_stream.index.alignment import UNREADABLE, Head, read_head
from ape_stream.index.layout import FORMAT, HEAD, MANIFEST, REFERENCE, Manifest, read_manifest
from ape_stream.indexing.keeping import Reference
from ape_stream.native.threads import one_blas_thread
from ape_stream.sinks.coco import package_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.indexing.keeping import Keep
    from ape_stream.values.queries import NetworkFacts

__all__ = ["Base", "open_base", "read_reference"]

DIRECTIONS: Final = 64
"""Of texts, in which what is dropped is bounded: they hold nearly all of what texts are."""


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What all parts of an index share."""

    manifest: Manifest
    """What made it."""
    head: Head
    """Aligns states with texts."""
    reference: Reference
    """The words that decide what is kept."""


def open_base(root: Path, facts: NetworkFacts, keep: Keep, words: Sequence[str] = ()) -> Base:
    """Read what an index has already, or make it and write it.

    Args:
        root: Folder of the index.
        facts: Of the network.
        keep: Which queries are kept.
        words: Reference words beyond the names that the network learnt, clean texts.

    Raises:
        ConfigError: the network knows no name, and there are no words; or the index was made with
            other settings.
        SinkError: it cannot be written.
    """
    texts = tuple(sorted({*facts.vocabulary, *words}))
    if not texts:
        raise ConfigError(f"{facts.model} knows no names: give --words, a file with some")
    # Another machine may compute other last bits of the directions: those that are there stay.
    head, reference = _found(root, facts, texts) or _made(facts, texts)
    manifest = _manifest(facts, head, keep, reference)
    named = {field.name: getattr(reference, field.name) for field in fields(Reference)}
    text = json.dumps(manifest.to_json(), ensure_ascii=False, indent=1, sort_keys=True)
    _refuse_another(root, manifest)
    # The manifest comes last: where it is, the others are.
    _write(root / HEAD, _npz({field.name: getattr(head, field.name) for field in fields(Head)}))
    _write(root / REFERENCE, _npz({**named, "texts": np.array(texts)}))
    _write(root / MANIFEST, f"{text}\n".encode())
    return Base(manifest, head, reference)


def _refuse_another(root: Path, manifest: Manifest) -> None:
    """Refuse to go on with an index of other settings, or of another network."""
    if not (root / MANIFEST).exists():
        return
    then, now = read_manifest(root).to_json(), manifest.to_json()
    changed = [name for name in now if name != "version" and then[name] != now[name]]
    if changed:
        lines = "; ".join(f"{name}: {then[name]} then, {now[name]} now" for name in changed)
        raise ConfigError(
            f"{root} was indexed with other settings ({lines:.300}): give another --out-dir, or"
            " --overwrite to replace it"
        )


def read_reference(root: Path) -> Reference:
    """Read the reference words of an index.

    Raises:
        ConfigError: they cannot be read.
    """
    try:
        with np.load(root / REFERENCE, allow_pickle=False) as arrays:
            texts = tuple(arrays["texts"].tolist())
            return Reference(texts, arrays["vectors"], arrays["biases"])
    except UNREADABLE as error:
        raise ConfigError(f"{root / REFERENCE} cannot be read: {error}") from error


def _found(
    root: Path, facts: NetworkFacts, texts: tuple[str, ...]
) -> tuple[Head, Reference] | None:
    try:
        head, reference = read_head(root / HEAD), read_reference(root)
    except ConfigError:
        return None
    same = all(np.array_equal(getattr(head, n), value) for n, value in facts.alignment.items())
    return (head, reference) if same and reference.texts == texts else None


def _made(facts: NetworkFacts, texts: tuple[str, ...]) -> tuple[Head, Reference]:
    width = len(facts.alignment["weight"])
    head = Head(**facts.alignment, basis=np.zeros((0, width), np.float32))
    vectors, biases = head.project(facts.embed(texts))
    # Principal directions of the words, not centred: bounds are of products with a text itself.
    with one_blas_thread():
        _, _, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    basis = np.ascontiguousarray(directions[:DIRECTIONS], np.float32)
    return replace(head, basis=basis), Reference(texts, vectors, biases)


def _manifest(facts: NetworkFacts, head: Head, keep: Keep, reference: Reference) -> Manifest:
    same = ("model", "weights", "resizing", "text_tower", "text_dtype", "text_pooling", "dtype",
            "threshold")  # fmt: skip
    return Manifest(
        format=FORMAT,
        head=head.digest,
        width=head.width,
        mask_margin=facts.mask_margin,
        per_prompt=facts.per_prompt,
        stuff=facts.stuff,
        keep_score=keep.score,
        keep_rows=keep.rows,
        reference=len(reference.texts),
        reference_digest=hashlib.sha256("\n".join(reference.texts).encode()).hexdigest(),
        version=package_version(),
        names=tuple(text for text in facts.vocabulary if " " in text),
        **{name: getattr(facts, name) for name in same},
    )


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return data.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write a file if it is not there already, as another worker may have made it."""
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)
