"""The base of outputs that write one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_stream.closing import Closing
from ape_stream.errors import ConfigError
from ape_stream.files import PartFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FileSink"]


class FileSink(Closing):
    """Base of sinks that write one file.

    Args:
        spec: The file.
        overwrite: Replace an older one.
    """

    one_stream = False
    """True where the file can hold one stream only."""

    def __init__(self, spec: str, *, overwrite: bool = False) -> None:
        self.file = PartFile(spec, overwrite=overwrite)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is written; see `WritesFiles`."""
        return self.file.files

    def claim(self, streams: Sequence[str]) -> None:
        """Refuse what cannot be written or would destroy something; see `WritesFiles`."""
        if self.one_stream and len(streams) > 1:
            path = self.file.path
            raise ConfigError(
                f"{path} takes one stream, and there are {len(streams)}: name it with {{stream}},"
                f" as in {path.with_name(f'{{stream}}{path.suffix}')}"
            )
        self.file.refuse_loss()
