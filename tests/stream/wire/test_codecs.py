import numpy as np
import pytest

from ape_stream.wire.codecs import pack_leb128


def one_by_one(values):
    """Unsigned LEB128 as its definition says."""
    packed = bytearray()
    for value in values:
        rest = value
        while rest >= 128:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


@pytest.mark.parametrize("count", [0, 1, 400])
@pytest.mark.parametrize("most", [1, 127, 128, 16_384, 2**21, 2**35])
def test_numbers_are_packed_as_one_by_one(count, most):
    values = np.random.default_rng(count).integers(0, most, count, endpoint=True)
    assert pack_leb128(values) == one_by_one(values.tolist())


def test_numbers_at_the_limits_of_a_byte():
    values = [2**bits + more for bits in (0, 7, 14, 21, 28, 34) for more in (-1, 0, 1)]
    assert pack_leb128(np.array(values)) == one_by_one(values)
