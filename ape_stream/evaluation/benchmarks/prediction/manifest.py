"""What predictions depend on: `manifest.json`, compared by every later run and by every score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping  # noqa: TC003 (tables are read by annotations)
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.folder import json_bytes
from ape_stream.batch.plan import differences
from ape_stream.batch.shards import write_whole
from ape_stream.errors import ConfigError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset

__all__ = ["Manifest", "Predicted", "annotation_digests", "describe"]

_FORMAT: Final = 1
"""Of the manifest; another one is refused."""
_NAME: Final = "manifest.json"
_CHUNK: Final = 1 << 20
"""Bytes that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One set of predictions."""

    task: str
    """The task that is read for it."""
    images: int
    """How many images are predicted."""
    of: int
    """How many the task has; more than `images` where a limit was given."""
    prompts: str
    """SHA-256 of the prompts, and of what is asked on each image."""
    annotations: Mapping[str, str]
    """SHA-256 of the files that the task is read from, by what they hold."""
    top_k: int
    """Most regions of an image."""
    fused: bool
    """Whether prompts are fused with the image."""

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(json_bytes(asdict(self))).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What all predictions of a folder depend on."""

    model: Mapping[str, Any]
    """Plugin, options, and the digest of the weights."""
    profile: str
    """"official" or "honest"."""
    limit: int | None
    """Most images of a task; None for all, which alone gives a real figure."""
    version: str
    """Of ape_stream."""
    predictions: Mapping[str, Predicted]
    """What is predicted, by name."""

    @property
    def name(self) -> str:
        """What the model is called in tables."""
        return str(self.model["options"].get("model", self.model["plugin"]))

    def save(self, out: Path) -> None:
        """Write it.

        Raises:
            SinkError: it cannot be written.
        """
        write_whole(out / _NAME, json_bytes({"format": _FORMAT, **asdict(self)}, indent=1))

    @classmethod
    def load(cls, out: Path) -> Manifest | None:
        """That of a folder; None where there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        path = out / _NAME
        if not path.exists():
            return None
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            if table.pop("format") != _FORMAT:
                raise ConfigError(f"{path} was written by another version: give another --out")
            sets = {
                name: read_table(Predicted, one, f"{path}: {name}")
                for name, one in table.pop("predictions").items()
            }
            return cls(predictions=sets, **table)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is no manifest of predictions: {error}") from error

    def joined(self, other: Manifest | None, where: Path) -> Manifest:
        """This one with the predictions that another one has beyond it.

        Raises:
            ConfigError: they depend on something else; the message lists what differs.
        """
        if other is None:
            return self
        shared = self.predictions.keys() & other.predictions.keys()
        old, new = ({**asdict(one)} for one in (other, self))
        for table in (old, new):
            table["predictions"] = {name: table["predictions"][name] for name in sorted(shared)}
        if lines := differences(old, new):
            raise ConfigError(
                f"{where} holds other predictions ({'; '.join(lines)}): give another --out"
            )
        return replace(self, predictions={**other.predictions, **self.predictions})

    @property
    def digest(self) -> str:
        """Of all but the list of predictions."""
        common = {key: value for key, value in asdict(self).items() if key != "predictions"}
        return hashlib.sha256(json_bytes(common)).hexdigest()


def describe(dataset: Dataset, places: Places, limit: int | None) -> Predicted:
    """What the predictions for a task depend on."""
    task, total = dataset.task, len(dataset.records)
    asked = [[record.key, record.asked] for record in dataset.records]
    prompts = hashlib.sha256(json_bytes([dataset.prompts, asked])).hexdigest()
    return Predicted(
        task=task.name,
        images=total if limit is None else min(limit, total),
        of=total,
        prompts=prompts,
        annotations=annotation_digests(places),
        top_k=task.top_k,
        fused=task.fused or task.mode != "name",
    )


def annotation_digests(places: Places) -> dict[str, str]:
    """SHA-256 of each file of a task; of a folder, of the names and sizes of its files."""
    return {
        what: _of_folder(path) if path.is_dir() else _of_file(path)
        for what in sorted(places.task.paths)
        if what != "images" and (path := places.path(what))
    }


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in files]
    return hashlib.sha256(json_bytes(rows)).hexdigest()
