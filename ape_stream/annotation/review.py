"""The file that the report writes: which tracks a person rejected.

{"format": 1, "rejected": [{"clip": "siteA/clip00", "track": 7}], "accepted": [...]}
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ape_stream.errors import UsageError, reason_of
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["rejected_in"]


def rejected_in(path: Path) -> dict[str, list[int]]:
    """The rejected tracks of a review, by clip, in order.

    Raises:
        UsageError: the file cannot be read, or is no review.
    """
    try:
        rejected = json.loads(read_text(path))["rejected"]
        pairs = {(str(item["clip"]), int(item["track"])) for item in rejected}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no review of the report page: {error}") from error
    tracks: dict[str, list[int]] = {}
    for clip, track in sorted(pairs):
        tracks.setdefault(clip, []).append(track)
    return tracks
