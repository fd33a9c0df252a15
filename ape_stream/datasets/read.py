"""Which reader a path goes to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ape_stream.datasets.coco import check_rows, read_coco
from ape_stream.datasets.instances import DatasetError
from ape_stream.datasets.voc import read_voc, voc_lists
from ape_stream.datasets.yolo import open_yolo, read_yolo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ape_stream.datasets.instances import InstanceData

__all__ = ["read_instances", "splits_of"]

_YAML = (".yaml", ".yml")


def splits_of(path: Path) -> tuple[str, ...]:
    """The splits that a data set names itself: train, val, test; none for a COCO file.

    Raises:
        DatasetError: see `read_instances`.
    """
    with _one_line(path):
        found = _resolve(path)
        if found.suffix.lower() in _YAML or _is_yolo(found):
            return tuple(open_yolo(found).splits)
        return tuple(voc_lists(found)) if found.is_dir() else ()


def read_instances(
    path: Path, images: Path | None = None, split: str | None = None
) -> InstanceData:
    """Read a data set and check every row.

    Args:
        path: A COCO file of instances; a folder of Pascal VOC; a `data.yaml` of YOLO, or its
            folder.
        images: Folder of the images; None: where the format keeps them.
        split: Train, val or test, of a set that names splits; None: train where there is one, else
            everything.

    Raises:
        DatasetError: it is none of these, a file cannot be read or is missing, a row is wrong, or
            there is no usable region; the message names the file and the row.
    """
    if images is not None and not images.is_dir():
        raise DatasetError(f"the folder of images {images} is missing")
    with _one_line(path):
        return _read(path, images, split)


def _read(path: Path, images: Path | None, split: str | None) -> InstanceData:
    found = _resolve(path)
    named = splits_of(path)
    if split is not None and split not in named:
        has = f"it has {', '.join(named)}" if named else "it has none"
        raise DatasetError(f"{path} has no split {split!r}: {has}")
    if found.suffix.lower() in _YAML or _is_yolo(found):
        data = open_yolo(found)
        rows = read_yolo(data, split or next(iter(data.splits)), images)
        return check_rows(data.path, data.root, rows)
    if not found.is_dir():
        return read_coco(found, images)
    lists = voc_lists(found)
    names = lists[split] if split else lists.get("train")
    return check_rows(found, found, read_voc(found, images, names))


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Refuse a data set that names what no system has: a name too long, a folder that is closed."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}: {error.filename}"
        raise DatasetError(f"{path} cannot be read: {what:.200}") from error


def _resolve(path: Path) -> Path:
    """The file that a path means: of a folder with one, its `data.yaml`.

    Raises:
        DatasetError: there is no such file, or a folder has no data set.
    """
    if not path.exists():
        raise DatasetError(f"{path} is no COCO file: there is no such file")
    if not path.is_dir():
        return path
    tables = sorted(p for p in path.iterdir() if p.suffix.lower() in _YAML)
    named = [p for p in tables if p.stem.lower() in ("data", "dataset")] or tables
    if len(named) == 1:
        return named[0]
    if named:
        raise DatasetError(f"{path} has several YAML files, name one: {', '.join(map(str, named))}")
    if _is_yolo(path) or next(path.rglob("*.xml"), None) is not None:
        return path
    tables = sorted(path.glob("*.json"))
    if len(tables) == 1:
        return tables[0]
    raise DatasetError(
        f"{path} is no data set: it has no data.yaml (YOLO), no XML (Pascal VOC) and not one JSON"
        " file (COCO)"
    )


def _is_yolo(folder: Path) -> bool:
    """Whether a folder without `data.yaml` is of YOLO."""
    return (folder / "labels").is_dir() and (folder / "images").is_dir()
