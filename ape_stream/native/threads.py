"""How many threads NumPy's linear algebra takes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ape_stream.optional import library

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["one_blas_thread"]


def one_blas_thread() -> AbstractContextManager[Any]:
    """Inside of it, NumPy's linear algebra is on the calling thread alone, and torch's as ever.

    OpenBLAS has a thread of each core wait for the next product, spinning: of small matrices this
    takes as long as the products do, and on a busy machine many times as long.

    Raises:
        PluginError: threadpoolctl is not installed.
    """
    limits: AbstractContextManager[Any] = _openblas().limit(limits=1)
    return limits


@cache
def _openblas() -> Any:
    """NumPy's OpenBLAS; nothing where it has another library."""
    controller = library("threadpoolctl", "index").ThreadpoolController()
    return controller.select(internal_api="openblas")
