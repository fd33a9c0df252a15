"""Texts that users write: files of them, and the form under which an embedding is known."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clean_text", "counted", "read_text"]

_PLAIN: Final = re.compile(r"[ -%'-~]*")
"""Printable ASCII without an ampersand: nothing in it is repaired."""


def clean_text(text: str) -> str:
    """Return `text` as towers see it: repaired Unicode, no HTML escapes, single spaces, lower case.

    Two texts with the same clean form have the same tokens, so the clean form identifies an
    embedding.
    """
    if _PLAIN.fullmatch(text):
        return " ".join(text.split()).lower()
    import ftfy  # noqa: PLC0415 (its tables take a tenth of a second)

    # Twice, as in the official code: web captions hold "&amp;amp;".
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()


def counted(count: int, what: str) -> str:
    """A number and its noun: "1 track", "2 tracks"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without the byte order mark that some editors begin it with.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    return path.read_text(encoding="utf-8-sig")
