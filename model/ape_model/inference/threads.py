"""How many CPU threads torch may use: one fewer than cores for nano, one after a fork."""

from __future__ import annotations

import os

import torch

__all__ = ["leave_a_core"]


def leave_a_core() -> None:
    """Keep one core for decoding and writing: nano gains little from the last one.

    OpenMP counts threads for each calling thread: this one must be the one that perceives.
    `OMP_NUM_THREADS` has the last word.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) - 1)))


def _use_one_thread() -> None:
    torch.set_num_threads(1)


# A forked process has OpenMP's list of threads but not the threads: the first operation that is
# split among them would wait for ever. With one thread nothing is split.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
