"""Label maps in C++ have the bytes of their plain forms in NumPy."""

import numpy as np
import pytest

from ape_nodes.benchmarks import scene
from ape_nodes.web.encoding import labels
from ape_nodes.web.encoding.native import native_labels
from ape_stream.native import cxx
from ape_stream.types import Mask


def has_compiler():
    try:
        return bool(cxx.compiler())
    except cxx.CompileError:
        return False


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


def masks_in(rng, size, count):
    """Masks at random places; some equal, some empty, some in memory that is not in one piece."""
    found = [Mask(np.zeros((0, 0), bool)), Mask(np.ones(size, bool)[:, ::-1])]
    for _ in range(count):
        height, width = (int(rng.integers(1, side + 1)) for side in size)
        y, x = (
            int(rng.integers(0, side - cut + 1))
            for side, cut in zip(size, (height, width), strict=True)
        )
        bitmap = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
        found += [Mask(bitmap, x, y)] * int(rng.integers(1, 3))
    wide = rng.random((size[0], 2 * size[1])) < 0.5
    return [*found, Mask(wide[:, ::2])]


@needs_compiler
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 31), (96, 128)])
def test_painted_as_by_numpy(size, step):
    rng = np.random.default_rng(size[1] * step)
    for _ in range(12):
        found = masks_in(rng, size, 8)
        plain = np.zeros([-(-side // step) for side in size], np.uint8)
        ours = plain.copy()
        labels.paint(found, plain, step)
        native_labels().paint(found, ours, step)
        np.testing.assert_array_equal(ours, plain)


@needs_compiler
def test_nothing_is_painted_of_no_masks():
    painted = np.zeros((3, 4), np.uint8)
    native_labels().paint([], painted, 2)
    assert not painted.any()


@needs_compiler
@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, 2), (9, 9)])
def test_a_mask_outside_of_its_frame_is_refused_by_both(x, y):
    outside = [Mask(np.ones((3, 3), bool), x, y)]
    for paint in (labels.paint, native_labels().paint):
        with pytest.raises(ValueError, match=r"."):
            paint(outside, np.zeros((4, 4), np.uint8), 1)


@needs_compiler
def test_runs_as_by_numpy():
    rng = np.random.default_rng(5)
    maps = [np.zeros((1, 1), np.uint8), np.zeros((200, 200), np.uint8)]
    maps += [rng.integers(0, 3, (1, width)).astype(np.uint8) for width in range(1, 40)]
    for length in (7, 8, 9, 127, 128, 129, 16_383, 16_384, 16_385):
        maps += [np.repeat(np.array([[3, 0, 255]], np.uint8), length, axis=1)]
    maps += [labels.label_map(masks_in(rng, (96, 128), 9), (96, 128)) for _ in range(9)]
    maps += [maps[-1][:, ::2]]
    for one in maps:
        assert native_labels().runs(one) == labels.runs(one)


def test_without_a_compiler_the_map_is_the_same(monkeypatch):
    found = scene(20, (108, 192)).instances
    ours = labels.label_map(found.masks, found.size)
    packed = [labels.pack_label_map(ours, small=small) for small in (True, False)]
    monkeypatch.setattr(labels, "native_labels", lambda: None)
    np.testing.assert_array_equal(labels.label_map(found.masks, found.size), ours)
    assert [labels.pack_label_map(ours, small=small) for small in (True, False)] == packed
