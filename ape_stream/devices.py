"""Where a model runs and in which arithmetic, as users name it; the same for every perceiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ape_stream.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "parse_device", "parse_dtype"]

DTYPES: Final = ("float32", "bfloat16", "float16")
"""What a network may compute in; 16 bits are never chosen for the user."""


def parse_device(name: str) -> torch.device:
    """Return the device that a user names; "auto" is the first GPU, else the CPU.

    Raises:
        ModelError: there is no such device here.
    """
    import torch  # noqa: PLC0415 (the core runs without; what needs a device has it loaded)

    here = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if here else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"no device {name!r}: choose auto, cpu or cuda") from None
    if device.type not in {"cpu", "cuda"} or (device.type == "cuda" and not here):
        raise ModelError(f"no device {name!r} on this machine: choose auto or cpu")
    return device


def parse_dtype(name: str) -> torch.dtype:
    """Return the arithmetic that a user names.

    Raises:
        ModelError: a network does not run in it.
    """
    import torch  # noqa: PLC0415

    if name not in DTYPES:
        raise ModelError(f"no dtype {name!r}: choose one of {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
