"""States of dropped queries in 8 bits, each next to that of a kept query of its frame.

Most of what is dropped was found twice: its state is nearly that of a kept query b, and only what
it differs by is stored, as codes q of step s. With the length e of what rounding lost, for any text

    h . t <= b . t + s (q . t) + e |t|

which is closer than two queries of one object are to one another: so it also shows which of them
suppresses the other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Differences = Callable[
        [NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]],
        tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]],
    ]

__all__ = ["CoarseStates", "differences", "encode_coarse"]

_LARGEST: Final = 127
_SLACK: Final = 1 + 2.0**-20
"""Above what float32 rounds in a length."""
_EXACT: Final = 2.0**-18
"""Above what fixed point rounds in exact scores (2^-20 at C = 256), in parts of |h| |t|."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseStates:
    """M dropped queries, of one frame or of several in order."""

    code: NDArray[np.int8]
    """(M, C) q."""
    step: NDArray[np.float32]
    """(M,) s."""
    error: NDArray[np.float32]
    """(M,) e."""
    base: NDArray[Any]
    """(M,) the kept query b, by its position among those of its frame."""
    box: NDArray[np.float32]
    """(M, 4) x1 y1 x2 y2 over the image's width and height, 0..1: the network's own box."""

    def to_bytes(self) -> bytes:
        """All columns, one after the other."""
        arrays = (self.code, self.step, self.error, self.base, self.box)
        return b"".join(array.tobytes() for array in arrays)

    @classmethod
    def joined(cls, several: Sequence[CoarseStates]) -> CoarseStates:
        """Those of several frames; at least one."""
        columns = ([getattr(one, field.name) for one in several] for field in fields(cls))
        return cls(*map(np.concatenate, columns))

    def take(self, own: NDArray[np.intp]) -> CoarseStates:
        """Some of them."""
        return CoarseStates(
            self.code[own], self.step[own], self.error[own], self.base[own], self.box[own]
        )

    @classmethod
    def from_bytes(cls, data: bytes, width: int) -> CoarseStates:
        """Undo `to_bytes`.

        Args:
            data: Of `to_bytes`.
            width: C.

        Raises:
            ValueError: it is damaged.
        """
        layout: tuple[tuple[Any, int], ...] = (
            (np.int8, width), (np.float32, 1), (np.float32, 1), (np.uint16, 1), (np.float32, 4),
        )  # fmt: skip
        size = sum(np.dtype(kind).itemsize * numbers for kind, numbers in layout)
        count, rest = divmod(len(data), size)
        if rest:
            raise ValueError(f"{len(data)} bytes are no whole number of coarse states")
        at, columns = 0, []
        for kind, numbers in layout:
            column = np.frombuffer(data, kind, count * numbers, at)
            columns.append(column)
            at += column.nbytes
        code, step, error, base, box = columns
        return cls(code.reshape(count, width), step, error, base, box.reshape(count, 4))

    def upper_products(
        self, kept: NDArray[np.float32], vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The highest products (M, P) of these states with texts.

        Args:
            kept: (K, C) states of the frame that are kept.
            vectors: (P, C) text vectors.
        """
        texts = vectors.T.astype(np.float64)  # (C, P)
        step = self.step.astype(np.float64)[:, None]
        products: NDArray[np.float64] = (kept.astype(np.float64) @ texts)[self.base]
        products += step * (self.code.astype(np.float64) @ texts)
        # No code is longer than one of the largest numbers alone.
        size = np.sqrt(np.square(kept, dtype=np.float64).sum(axis=1))[self.base]
        size += _LARGEST * np.sqrt(self.code.shape[1]) * step[:, 0]
        reach = self.error + _EXACT * (size + self.error)  # (M,)
        products += reach[:, None] * np.linalg.norm(texts, axis=0)
        return products


def encode_coarse(
    states: NDArray[np.float32],
    boxes: NDArray[np.float32],
    kept: NDArray[np.float32],
    form: Differences | None = None,
) -> CoarseStates:
    """Encode the states of dropped queries.

    Args:
        states: (M, C) finite.
        boxes: (M, 4) of the same queries.
        kept: (K, C) states of the same frame, 1 <= K <= 65,536.
        form: A compiled form of `differences`.
    """
    distance = np.square(kept).sum(axis=1) - 2 * states @ kept.T  # (M, K), less |h|^2
    base = distance.argmin(axis=1)
    code, step, lost = (form or differences)(states, kept, base)
    error = np.nextafter((lost * _SLACK).astype(np.float32), np.float32(np.inf))
    return CoarseStates(code, step, error, base.astype(np.uint16), boxes)


def differences(
    states: NDArray[np.float32], kept: NDArray[np.float32], base: NDArray[np.intp]
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]]:
    """What states (M, C) differ by from those of (K, C) that `base` (M,) names, in 8 bits.

    Returns:
        (M, C) codes, (M,) steps, and the (M,) lengths of what rounding loses.
    """
    nearest = kept[base]
    difference = states - nearest  # (M, C)
    step = np.maximum(np.abs(difference).max(axis=1) / np.float32(_LARGEST), np.float32(1e-30))
    # At most 127: so was the step chosen.
    code = np.rint(difference / step[:, None]).astype(np.int8)
    # In float64, of the numbers as they are stored, and added up in their order.
    lost = states.astype(np.float64) - nearest - code * step[:, None].astype(np.float64)
    squares = np.add.accumulate(lost * lost, axis=1)[:, -1]
    return code, step, np.sqrt(squares)
