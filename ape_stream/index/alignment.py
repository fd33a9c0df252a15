"""The alignment of region states with texts, in NumPy: the same numbers as in the network.

Sums are exact (decisions/0009): before a product, both sides are rounded to fixed point, a state to
16 bits and a text to so few that float64 holds every partial sum. So neither the order of a sum nor
the shape of the arrays changes a score. `ape_model.network.align` has the same arithmetic in torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "LEAST_EXPONENT",
    "STATE_BITS",
    "UNREADABLE",
    "Codes",
    "Head",
    "as_float32",
    "fixed_point",
    "fixed_point_bits",
    "float32_of",
    "logits_of",
    "read_head",
    "rounded_states",
    "scores_of",
    "state_codes",
]

LOGIT_LIMIT: Final = 50_000.0
"""As in `ape_model.network.align`."""
_NARROW: Final = 64
"""Exponents below it, by size, are far from the limits of float32, also after a shift by 30."""
_ROWS: Final = 256
"""So few that all steps find them in a cache."""
_SIGN_AND_REST: Final = np.int32(0x8FFFE000 - 2**32)
_EXPONENTS: Final = np.float32(2.0**112)
"""Exponents of a float16 count from -15, those of a float32 from -127."""
STATE_BITS: Final = 15
"""And a sign: `STATE_BITS` of `ape_model.network.align`."""
LEAST_EXPONENT: Final = -100
"""As there: smaller states are as good as 0, and a float32 holds every number of codes."""
_SHORT: Final = 16
"""Rows of so few numbers are not halved."""
UNREADABLE: Final = (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile)
"""What reading a damaged file of NumPy arrays raises."""
_LEAST_NORM: Final = 1e-12
"""As in torch's `normalize`: a zero embedding stays zero."""


class Codes(NamedTuple):
    """N states as scores are made of them: row n is `code[n] * 2^exponent[n]`."""

    code: NDArray[np.int16]
    """(N, C) from -32767 to 32767."""
    exponent: NDArray[np.int16]
    """(N,)."""

    def take(self, rows: slice | NDArray[np.intp]) -> Codes:
        """Some of them."""
        return Codes(self.code[rows], self.exponent[rows])

    def states(self) -> NDArray[np.float32]:
        """(N, C), without loss: `state_codes` rounds these to themselves."""
        states = self.code.astype(np.float32)
        states *= self.units().astype(np.float32)[:, None]
        return states

    def units(self) -> NDArray[np.float64]:
        """(N,) what a code stands for."""
        return np.ldexp(np.float64(1), self.exponent)


def state_codes(states: NDArray[np.float32]) -> Codes:
    """Round each of (N, C) finite states to 15 bits below its largest number."""
    _, exponent = np.frexp(_largest(states))  # (N, 1), largest < 2^exponent
    exponent = np.maximum(exponent, LEAST_EXPONENT) - STATE_BITS
    code = np.rint(states * np.ldexp(np.float64(1), -exponent))
    # The largest may be rounded up to one more than there is room for.
    np.clip(code, 1 - 2**STATE_BITS, 2**STATE_BITS - 1, out=code)
    return Codes(code.astype(np.int16), exponent[:, 0].astype(np.int16))


def rounded_states(states: NDArray[np.float32]) -> tuple[Codes, NDArray[np.float32]]:
    """The codes of (N, C) finite states, and the states that they stand for."""
    codes = state_codes(states)
    return codes, codes.states()


def as_float32(states: NDArray[Any]) -> NDArray[np.float32]:
    """States of a network, (N, C) float32, float16 or bits of bfloat16 as uint16, as float32."""
    if states.dtype == np.uint16:  # bfloat16 is the upper half of float32
        return (states.astype(np.uint32) << 16).view(np.float32)
    if states.dtype == np.float16:
        return float32_of(states)
    return np.asarray(states, np.float32)


def fixed_point(values: NDArray[np.generic], width: int) -> NDArray[np.float64]:
    """Round each row to multiples of one power of two, so that its products sum up exactly.

    Args:
        values: (..., C) finite.
        width: How many products are summed up at most.

    Returns:
        (..., C) float64: of two such rows, every sum of up to `width` products is exact.
    """
    bits = fixed_point_bits(width)
    largest = _largest(values)  # (..., 1)
    _, exponent = np.frexp(largest)  # largest < 2^exponent
    # What a float32 rounds to has no more bits than a float32, where no power of two overflows.
    narrow = values.dtype == np.float32 and bool((np.abs(exponent) < _NARROW).all())
    kind = np.float32 if narrow else np.float64
    # Products with powers of two are exact, and take a fifth of the time of `ldexp` of every one.
    rounded: NDArray[Any] = values.astype(kind) * np.ldexp(kind(1), bits - exponent)
    np.rint(rounded, out=rounded)
    rounded *= np.ldexp(kind(1), exponent - bits)
    wide: NDArray[np.float64] = rounded.astype(np.float64, copy=False)
    return wide


def fixed_point_bits(width: int) -> int:
    """How many bits float64 has room for in each factor of a sum of so many products."""
    # A product of two b-bit integers has 2 b bits, a sum of `width` of them log2(width) more.
    return (53 - (width - 1).bit_length()) // 2


def float32_of(halves: NDArray[np.float16]) -> NDArray[np.float32]:
    """Finite (N, C) float16 as float32, in a third of the time that `astype` takes."""
    wide = np.empty(halves.shape, np.float32)
    for first in range(0, len(halves), _ROWS):
        own = wide[first : first + _ROWS]
        # The sign is extended to the left: after the shift it is where that of a float32 is.
        bits = own.view(np.int32)
        bits[...] = halves[first : first + _ROWS].view(np.int16)
        bits <<= 13
        bits &= _SIGN_AND_REST
        own *= _EXPONENTS
    return wide


def _largest(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(..., 1) the largest absolute value of each row."""
    magnitudes: NDArray[Any] = np.abs(values)
    # Halves against halves are one step for many rows; `max` of a row is one step for each number.
    while (side := magnitudes.shape[-1]) > _SHORT and side % 2 == 0:
        magnitudes = np.maximum(magnitudes[..., : side // 2], magnitudes[..., side // 2 :])
    largest: NDArray[np.float64] = magnitudes.max(axis=-1, keepdims=True, initial=0).astype(
        np.float64
    )
    return largest


def scores_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores 0..1 of logits."""
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # exp of 50,000 is infinite, and its score 0
        return (1 / (1 + np.exp(-wide))).astype(np.float32)


def logits_of(
    products: NDArray[np.float64], biases: NDArray[np.float32], scale: np.float32
) -> NDArray[np.float32]:
    """Exact logits of exact products of states and text vectors.

    Args:
        products: (..., P) of states as `Codes` have them and of texts in fixed point.
        biases: (P,) of the texts.
        scale: `Head.scale`.
    """
    logits = products / np.float64(scale) + biases.astype(np.float64)
    return np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The alignment head of the network, and what is known of the texts that it meets."""

    weight: NDArray[np.float32]
    """(C, D) projects unit embeddings, halved, to text vectors."""
    offset: NDArray[np.float32]
    """(C,) is added to every text vector."""
    bias_weight: NDArray[np.float32]
    """(D,) makes a text's bias of its unit embedding."""
    bias_offset: NDArray[np.float32]
    """() is added to every bias."""
    scale: NDArray[np.float32]
    """() divides products."""
    basis: NDArray[np.float32]
    """(k, C) orthonormal directions in which most of the reference words lie, best first."""

    @property
    def width(self) -> int:
        """C, numbers of a state and of a text vector."""
        return len(self.weight)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all values."""
        digest = hashlib.sha256()
        for field in fields(self):
            value: NDArray[np.float32] = getattr(self, field.name)
            digest.update(f"{field.name}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value, "<f4").tobytes())
        return digest.hexdigest()

    def project(
        self, embeddings: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Text vectors (P, C) and biases (P,) of (P, D) embeddings.

        Each row is a function of that text alone: which others are asked changes nothing.
        """
        width = embeddings.shape[1]
        exact = fixed_point(embeddings, width)
        norms = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
        unit = fixed_point(exact / np.maximum(norms, _LEAST_NORM), width)
        vectors = unit @ fixed_point(self.weight, width).T / 2 + self.offset.astype(np.float64)
        biases = unit @ fixed_point(self.bias_weight, width) + np.float64(self.bias_offset)
        return vectors.astype(np.float32), biases.astype(np.float32)

    def logits(
        self,
        states: NDArray[np.float32],
        vectors: NDArray[np.float32],
        biases: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Exact logits (N, P) of (N, C) states and P projected texts."""
        codes = state_codes(states)
        products = codes.code.astype(np.float64) @ fixed_point(vectors, self.width).T
        products *= codes.units()[:, None]
        return logits_of(products, biases, np.float32(self.scale))

    def save(self, path: Path) -> None:
        """Write it, the same bytes for the same values."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        with path.open("wb") as file:
            np.savez(file, **arrays)


def read_head(path: Path) -> Head:
    """Read what `Head.save` wrote.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Head(**{field.name: arrays[field.name] for field in fields(Head)})
    except UNREADABLE as error:
        raise ConfigError(
            f"{path} is no head of an index ({error}): make the index again"
        ) from error
