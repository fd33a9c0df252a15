"""When the next segment of an HLS playlist is there (RFC 8216).

FFmpeg reads a playlist again once a segment's length after the last time, so what it finds is up to
a segment old, depending on the moment at which it began. After an interruption the first frame is
fresh only where FFmpeg begins right after a new segment was listed.
"""

from __future__ import annotations

import re
import time
from http.client import HTTPException
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import urlopen

if TYPE_CHECKING:
    import threading

__all__ = ["await_segment"]

_WEB: Final = ("http://", "https://")
_MOST_BYTES: Final = 1 << 20
"""Of a playlist that is read: thousands of segments."""
_TARGET: Final = re.compile(r"#EXT-X-TARGETDURATION:(\d{1,3})\b")
_VARIANT: Final = re.compile(r"^#EXT-X-STREAM-INF:.*\n(?!#)(\S+)", re.MULTILINE)
_POLLS: Final = 10
"""Requests in the time of a segment."""


def await_segment(url: str, left: threading.Event, timeout_s: float) -> None:
    """Wait until a live playlist lists a new segment, two segments' length at most.

    Returns at once where that cannot be found out: whoever opens the playlist next reports why.

    Args:
        url: The playlist, or one that lists variants of a stream.
        left: Set once nobody waits any more.
        timeout_s: Limit for each request, seconds.
    """
    try:
        before = _fetch(url, timeout_s)
        if variant := _VARIANT.search(before):
            url = urljoin(url, variant[1])
            before = _fetch(url, timeout_s)
        target = _TARGET.search(before)
        if target is None or "#EXT-X-ENDLIST" in before:
            return
        target_s = int(target[1])
        deadline_s = time.monotonic() + 2 * target_s
        while time.monotonic() < deadline_s and not left.wait(target_s / _POLLS):
            if _fetch(url, timeout_s) != before:
                return
    except (URLError, HTTPException, OSError, ValueError):
        return


def _fetch(url: str, timeout_s: float) -> str:
    if not url.lower().startswith(_WEB):  # a playlist of others must not name a local file
        raise ValueError(url)
    with urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 (checked above)
        return str(answer.read(_MOST_BYTES), "utf-8", "replace")
