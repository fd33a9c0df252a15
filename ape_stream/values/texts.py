"""The one form of a text under which its embedding is known."""

from __future__ import annotations

import html

import ftfy

__all__ = ["clean_text"]


def clean_text(text: str) -> str:
    """Return `text` as towers see it: repaired Unicode, no HTML escapes, single spaces, lower case.

    Two texts with the same clean form have the same tokens, so the clean form identifies an
    embedding.
    """
    # Twice, as in the official code: web captions hold "&amp;amp;".
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()
