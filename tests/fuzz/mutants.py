"""Damaged variants of sound files."""

from __future__ import annotations

import random

PIECES = (
    b"\x00" * 8,
    b"\xff" * 8,
    b"[" * 2000,
    b'"',
    b"\n",
    b"\\u0000",
    "\ufeff".encode(),
    b"1e999",
)


def mutant(sound: bytes, seed: int) -> bytes:
    """Flip a bit, overwrite, cut out, insert or repeat bytes, or cut off the end."""
    rng = random.Random(seed)
    data = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 40))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 64, 1500))
        match rng.randrange(8):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + length] = rng.randbytes(len(data[at : at + length]))
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = rng.randbytes(length)
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                piece = rng.choice(PIECES)
                data[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece
            case _:
                if rng.random() < 0.2:
                    del data[at:]
    return bytes(data)
