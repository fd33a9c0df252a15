"""State of a run on disk, and gradients of several processes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from ape_model.io.read_errors import read_errors
from ape_model.training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["average_gradients", "restore_state", "write_state"]

_ADVICE = "remove it to start the run again"


def write_state(folder: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Save the state of a run; an interrupted write keeps the previous one.

    Args:
        folder: Of the run.
        state: What is saved as state.pt.
        keep: How many states to keep; the one before is state.1.pt.
    """
    part, newest = folder / "state.part", folder / "state.pt"
    torch.save(state, part)
    olds = [folder / f"state.{age}.pt" for age in range(1, keep)]
    for older, newer in zip(olds[:0:-1], olds[-2::-1], strict=True):  # the oldest one goes
        if newer.exists():
            newer.replace(older)
    if olds and newest.exists():
        # A second name and not another one: state.pt is there at every moment.
        olds[0].unlink(missing_ok=True)
        try:
            olds[0].hardlink_to(newest)
        except OSError:  # a file system without links
            shutil.copyfile(newest, olds[0])
    part.replace(newest)


def restore_state(
    folder: Path, device: torch.device, restore: Callable[[dict[str, Any]], None]
) -> bool:
    """Read the last state of a folder and restore it; False where there is none.

    Args:
        folder: Of the run.
        device: Of the tensors.
        restore: Takes the state; a state of another run makes it fail.

    Raises:
        TrainingError: there is one, but it is damaged or of another run.
    """
    path = folder / "state.pt"
    if not path.is_file():
        return False
    with read_errors(path, TrainingError, _ADVICE):
        state = torch.load(path, weights_only=True, map_location=device)
    try:
        restore(state)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise TrainingError(f"{path} is of another run ({first}): {_ADVICE}") from error
    return True


def average_gradients(parameters: Sequence[nn.Parameter], dtype: torch.dtype | None = None) -> None:
    """Average gradients over all processes; those of unused weights count as zero.

    Args:
        parameters: The same, in the same order, in every process.
        dtype: What they are sent as; float16 halves the traffic (PyTorch's DDP communication
            hook `fp16_compress_hook`). None: as they are.
    """
    if not distributed.is_initialized():
        return
    # One flat tensor needs one collective; it must have the same length in every process, also
    # where a process did not use some weights in this step.
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat: Tensor = torch.cat([gradient.flatten() for gradient in gradients])
    if dtype is None:
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
    else:  # divided first: the sum of all processes may not fit into 16 bits
        sent = (flat / distributed.get_world_size()).to(dtype)
        distributed.all_reduce(sent)
        flat = sent.to(flat.dtype)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)
