"""An output folder that is written under another name and gets its own when it is whole."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from ape_stream.errors import ConfigError, SinkError
from ape_stream.files import PART, PartFile, refuse_running, written

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ABOUT", "PartFolder"]

ABOUT = "ape_stream.json"
"""In every folder that was written here: what made it. A folder without it is never replaced."""


class PartFolder:
    """A folder that is written as `<name>.part`, and renamed in one step.

    What was there under the name before stays until then. A lock on `ape_stream.json` inside the
    part keeps a second process out. What an earlier process left of a part is thrown away: it was
    made of records, and can be made again.

    Args:
        path: The folder in the end.
        overwrite: Replace a folder of this name that was written here.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.part = path.with_name(path.name + PART)
        self._overwrite = overwrite
        self._about = PartFile(self.part / ABOUT, overwrite=True)

    def open(self) -> None:
        """Make the part, empty, and lock it.

        Raises:
            ConfigError: the folder exists, or another process writes it.
            SinkError: it cannot be made.
        """
        with written(self.path):
            self._refuse_loss()
            if self.part.exists():
                refuse_running(self._about.part)
                self._refuse_stranger(self.part, ABOUT + PART)
                shutil.rmtree(self.part)
        self._about.open()

    def _refuse_loss(self) -> None:
        if not self.path.exists():
            return
        if not self._overwrite:
            raise ConfigError(
                f"{self.path} exists already: give another folder, or replace it with"
                " overwrite=True"
            )
        self._refuse_stranger(self.path, ABOUT)

    @staticmethod
    def _refuse_stranger(folder: Path, mark: str) -> None:
        if not folder.is_dir():
            raise SinkError(f"cannot write {folder}: it is a file")
        if any(folder.iterdir()) and not (folder / mark).exists():
            raise ConfigError(
                f"{folder} was not written by ape-stream and is not replaced: give another folder"
            )

    def close(self, about: dict[str, Any] | None) -> None:
        """Write `ape_stream.json` and rename the folder; without a value, remove the part.

        Raises:
            SinkError: it cannot be renamed.
        """
        done = False
        try:
            with written(self.path), self._about.finishing(whole=about is not None):
                if about is not None:
                    with self._about.stream("w") as stream:
                        stream.write(json.dumps(about, ensure_ascii=False, indent=1) + "\n")
                    done = True
        finally:
            if not done:
                shutil.rmtree(self.part, ignore_errors=True)
        if done:
            with written(self.path):
                self._take_name()

    def _take_name(self) -> None:
        older = self.path.with_name(f"{self.path.name}.old")
        if older.exists():
            self._refuse_stranger(older, ABOUT)
            shutil.rmtree(older)
        if self.path.exists():  # a folder cannot be replaced by another in one step
            self._refuse_loss()
            self.path.rename(older)
        self.part.rename(self.path)
        shutil.rmtree(older, ignore_errors=True)
