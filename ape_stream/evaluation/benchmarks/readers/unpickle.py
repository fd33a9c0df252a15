"""Pickles of data sets, read without running anything that is in them.

A pickle is a program. Here it may build plain values and numpy arrays, and nothing else: any
other name it asks for is refused before it is looked up.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_pickle"]

_ARRAYS: Final = frozenset(
    (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
    )
)
"""What arrays and scalars of numpy are made of."""
_PLAIN: Final = (
    *(bool, bytearray, bytes, complex, dict, float, frozenset, int),
    *(list, range, set, slice, str, tuple),
)
_PLAIN_NAMES: Final = {one.__name__: one for one in _PLAIN}


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, and with them arrays, as protocols before 3 hold them: text of characters 0..255."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes as text in {encoding!r}")
    return text.encode("latin1")


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # As numpy 1 called it.
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        if module in {"builtins", "__builtin__"} and name in _PLAIN_NAMES:
            return _PLAIN_NAMES[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def read_pickle(path: Path) -> Any:
    """Plain values and numpy arrays of a pickle.

    Raises:
        SourceError: it cannot be read, or asks for anything else.
    """
    try:
        with path.open("rb") as file:
            return _Plain(file, encoding="latin1").load()
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        ImportError,
    ) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
