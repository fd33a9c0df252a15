"""How the memory of a worker stays the same over any number of clips (glibc; elsewhere nothing)."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["limit_fragmentation", "trim"]

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Parameters of mallopt(3), from malloc.h."""
_ARENAS: Final = 2
"""Threads come and go with every clip, and each arena keeps what they freed."""
_IMAGE_BYTES: Final = 4 << 20
"""From this size on (images of 1080p) a block comes from the system and goes back to it. By default
glibc raises that limit with the first image that is freed, and from then on images lie between
small blocks on the heap: the peak of a worker grew by a fifth over 40 clips."""


def limit_fragmentation() -> None:
    """Set up the allocator of this process; called before it has threads."""
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _IMAGE_BYTES)


def trim() -> None:
    """Give the memory of what was freed back to the system.

    The allocator keeps what threads freed for the next thread of the same arena, and every clip has
    threads of its own: without this, a worker grows with the first clips.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
