"""Masks against full-frame computations: torch for upsampling, pycocotools for run lengths."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from ape_stream import masks
from ape_stream.types import Mask

SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (1, 10_000), (10_000, 1), (37, 53), (270, 480)]


def blobs(size: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth random regions with holes; some touch the border."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) > 0.03


def smooth_logits(size: tuple[int, int], seed: int, shift: float = 0.6) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    return (cv2.GaussianBlur(noise, (0, 0), 2) * 8 - shift).astype(np.float32)


def full_frame(logits, size, filled, threshold=0.0):
    """What torch makes of the whole map, cut to the frame: the definition to be equal to."""
    scale = (size[0] / filled[0], size[1] / filled[1])
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None],
        scale_factor=scale,
        mode="bilinear",
        align_corners=False,
        recompute_scale_factor=False,
    )
    return (whole[0, 0, : size[0], : size[1]] > threshold).numpy()


# ------------------------------------------------------------------------------------ upsampling


@pytest.mark.parametrize(
    ("map_size", "size", "filled"),
    [
        ((256, 256), (1080, 1920), (144, 256)),
        ((256, 256), (270, 480), (144, 256)),
        ((256, 256), (667, 1001), (170.75, 256)),
        ((64, 64), (359, 641), (35.75, 64)),
        ((32, 48), (96, 100), (32, 48)),
        ((32, 48), (20, 31), (32, 48)),  # the frame is smaller than the map
    ],
)
def test_upsampling_equals_torch_on_the_whole_frame(map_size, size, filled):
    for seed in range(4):
        logits = smooth_logits(map_size, seed)
        wanted = full_frame(logits, size, filled)
        found = masks.from_logits(logits, size, filled)
        assert wanted.any()
        assert np.count_nonzero(masks.paste(found, size) != wanted) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2), (1081, 1919)])
def test_upsampling_of_extreme_frames(size):
    logits = smooth_logits((16, 16), 3, shift=0.0)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    found = masks.paste(masks.from_logits(logits, size), size)
    # Torch's sums may differ in the last bit: only pixels at the threshold itself may differ.
    assert not ((found != (wanted > 0)) & (np.abs(wanted) > 1e-5)).any()


@pytest.mark.parametrize("cell", [(0, 0), (0, 31), (31, 0), (31, 31), (13, 7)])
def test_a_single_hot_cell_loses_no_pixel_at_its_border(cell):
    logits = np.full((32, 32), -1e-3, np.float32)
    logits[cell] = 100.0  # reaches almost a whole cell into its neighbours
    wanted = full_frame(logits, (300, 500), (32, 32))
    found = masks.from_logits(logits, (300, 500))
    np.testing.assert_array_equal(masks.paste(found, (300, 500)), wanted)


def test_threshold_is_in_logits():
    logits = np.linspace(-4, 4, 64, dtype=np.float32).reshape(8, 8)
    wide, narrow = (masks.area(masks.from_logits(logits, (80, 80), None, t)) for t in (-1.0, 1.0))
    assert wide > narrow > 0
    wanted = full_frame(logits, (80, 80), (8, 8), 1.0)
    assert narrow == wanted.sum()


def test_nothing_above_the_threshold_is_the_empty_mask():
    empty = masks.from_logits(np.full((8, 8), -1, np.float32), (30, 40))
    assert empty.bitmap.shape == (0, 0)
    # Above the threshold only in the padding, out of the frame's reach.
    padded = np.full((8, 8), -1, np.float32)
    padded[7, 7] = 5
    assert masks.area(masks.from_logits(padded, (30, 40), (4, 8))) == 0


def test_the_crop_is_the_box_of_the_true_pixels():
    found = masks.from_logits(smooth_logits((64, 64), 5), (333, 444), (48, 64))
    bitmap = found.bitmap
    assert bitmap[0].any()
    assert bitmap[-1].any()
    assert bitmap[:, 0].any()
    assert bitmap[:, -1].any()


@pytest.mark.parametrize("filled", [(0, 8), (8, 0), (9, 8), (8, 8.1)])
def test_a_frame_outside_the_map_is_refused(filled):
    with pytest.raises(ValueError, match="not inside the map"):
        masks.from_logits(np.zeros((8, 8), np.float32), (4, 4), filled)


def packed(dense):
    """(H, W) bool as (H, ceil(W / 32)) int32."""
    bits = np.packbits(dense, axis=1, bitorder="little")
    wide = np.zeros((len(dense), -(-dense.shape[1] // 32) * 4), np.uint8)
    wide[:, : bits.shape[1]] = bits
    return wide.view(np.int32)


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_out_of_bits_is_the_one_cut_out_of_pixels(size):
    for dense in (blobs(size, 1), np.ones(size, np.bool_), np.zeros(size, np.bool_)):
        found, wanted = masks.from_bits(packed(dense), size[1]), masks.crop(dense)
        assert masks.box(found) == masks.box(wanted)
        np.testing.assert_array_equal(found.bitmap, wanted.bitmap)


def test_every_single_bit_is_found():
    for x in range(70):
        dense = np.zeros((3, 70), np.bool_)
        dense[1, x] = True
        assert masks.box(masks.from_bits(packed(dense), 70)) == (x, 1, x + 1, 2)


def test_words_that_do_not_make_the_width_are_refused():
    with pytest.raises(ValueError, match="2 words of 32 pixels do not make a width of 65"):
        masks.from_bits(np.zeros((3, 2), np.int32), 65)


# --------------------------------------------------------------------------------- cut and paste


@pytest.mark.parametrize("size", SIZES)
def test_paste_undoes_cut(size):
    dense = blobs(size, 1)
    np.testing.assert_array_equal(masks.paste(masks.crop(dense), size), dense)


def test_cut_finds_the_smallest_box():
    dense = np.zeros((9, 9), np.bool_)
    dense[2, 3] = dense[5, 7] = True
    mask = masks.crop(dense)
    assert masks.box(mask) == (3, 2, 8, 6)
    assert masks.area(mask) == 2
    np.testing.assert_array_equal(masks.boxes([mask]), np.array([[3, 2, 8, 6]], np.float32))


def test_a_mask_outside_the_frame_is_refused():
    mask = Mask(np.ones((2, 2), np.bool_), 4, 4)
    for use in (masks.paste, masks.encode_rle):
        with pytest.raises(ValueError, match="outside a 5x5 frame"):
            use(mask, (5, 5))


# ------------------------------------------------------------------------------------------- RLE


def assert_coco_equal(dense):
    wanted = coco.encode(np.asfortranarray(dense, np.uint8))
    mask = masks.crop(dense)
    assert masks.encode_rle(mask, dense.shape) == wanted
    np.testing.assert_array_equal(masks.paste(masks.decode_rle(wanted), dense.shape), dense)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_rle_is_byte_equal_to_pycocotools(size, seed):
    assert_coco_equal(blobs(size, seed))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_rle_is_byte_equal_on_small_noise(height, width, seed, share):
    assert_coco_equal(np.random.default_rng(seed).random((height, width)) < share)


def test_rle_of_full_and_empty_masks():
    assert_coco_equal(np.ones((480, 640), np.bool_))
    assert_coco_equal(np.zeros((480, 640), np.bool_))
    stripes = np.zeros((20, 30), np.bool_)
    stripes[:, 5:9] = True  # runs that go on from column to column
    stripes[:, 29] = True  # and end with the frame
    assert_coco_equal(stripes)


def test_decoding_reads_bytes_text_and_lengths():
    dense = blobs((33, 21), 4)
    rle = masks.encode_rle(masks.crop(dense), dense.shape)
    lengths = masks.frame_run_lengths(masks.crop(dense), dense.shape).tolist()
    for counts in (rle["counts"], rle["counts"].decode(), lengths):
        mask = masks.decode_rle({"size": [33, 21], "counts": counts})
        np.testing.assert_array_equal(masks.paste(mask, (33, 21)), dense)


def test_decoding_accepts_empty_runs():
    mask = masks.decode_rle({"size": [2, 2], "counts": [1, 0, 1, 2, 0]})
    np.testing.assert_array_equal(masks.paste(mask, (2, 2)), [[False, True], [False, True]])


@pytest.mark.parametrize(
    "counts", [b"", b"o", b"\xff", b"!!", b"3", [5], [-1, 5], [], b"oooooooooooooo0", [2, 1, 2]]
)
def test_damaged_rle_is_refused(counts):
    with pytest.raises(ValueError, match="run"):
        masks.decode_rle({"size": [2, 2], "counts": counts})


# -------------------------------------------------------------------------------------- polygons


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_filling_the_polygons_gives_the_mask_back(size, seed):
    dense = blobs(size, seed)
    canvas = np.zeros(size, np.uint8)
    for part in masks.polygons(masks.crop(dense)):
        cv2.fillPoly(canvas, [part.outer, *part.holes], 1)
    np.testing.assert_array_equal(canvas.astype(np.bool_), dense)


def test_polygons_of_a_ring_with_an_island():
    dense = np.zeros((30, 40), np.bool_)
    dense[5:20, 10:30] = True
    dense[8:17, 13:27] = False
    dense[12, 20] = True
    ring, island = sorted(masks.polygons(masks.crop(dense)), key=lambda p: -len(p.outer))
    assert (ring.outer.min(0).tolist(), ring.outer.max(0).tolist()) == ([10, 5], [29, 19])
    assert len(ring.holes) == 1
    assert island.outer.tolist() == [[20, 12]]
    assert island.holes == ()
    assert masks.polygons(masks.crop(np.zeros((3, 3), np.bool_))) == []


# ------------------------------------------------------------------------------- IoU, label maps


def test_iou_matrix_equals_dense_counting():
    dense = [blobs((61, 83), seed) for seed in range(5)] + [np.zeros((61, 83), np.bool_)]
    found = masks.iou_matrix([masks.crop(d) for d in dense[:4]], [masks.crop(d) for d in dense[2:]])
    wanted = [[(a & b).sum() / max((a | b).sum(), 1) for b in dense[2:]] for a in dense[:4]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found.dtype == np.float32


def test_containment_matrix_equals_dense_counting():
    dense = [blobs((61, 83), seed) for seed in range(5)] + [np.zeros((61, 83), np.bool_)]
    mine, theirs = [masks.crop(d) for d in dense[:4]], [masks.crop(d) for d in dense[2:]]
    found = masks.containment_matrix(mine, theirs)
    wanted = [[(a & b).sum() / max(min(a.sum(), b.sum()), 1) for b in dense[2:]] for a in dense[:4]]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert 0 < wanted[0][0] < 1


def test_iou_matrix_of_nothing():
    mask = masks.crop(np.ones((2, 2), np.bool_))
    empty = masks.crop(np.zeros((2, 2), np.bool_))
    assert masks.iou_matrix([], [mask]).shape == (0, 1)
    assert masks.iou_matrix([mask], []).shape == (1, 0)
    assert masks.iou_matrix([empty], [empty]).tolist() == [[0.0]]


def test_label_map_paints_small_masks_over_large_ones():
    small, large = np.zeros((2, 10, 12), np.bool_)
    large[1:9, 1:11] = True
    small[4:6, 4:6] = True
    parts = [masks.crop(small), masks.crop(large)]
    painted = masks.label_map(parts, (10, 12))
    assert painted.dtype == np.uint16
    np.testing.assert_array_equal(painted, np.where(small, 1, np.where(large, 2, 0)))
    painted = masks.label_map(parts, (10, 12), [700, 65535])
    np.testing.assert_array_equal(painted, np.where(small, 700, np.where(large, 65535, 0)))
    assert masks.label_map([], (2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("value", [0, 65536, -1])
def test_label_map_refuses_values_that_do_not_fit(value):
    with pytest.raises(ValueError, match="65535"):
        masks.label_map([masks.crop(np.ones((1, 1), np.bool_))], (1, 1), [value])


# ------------------------------------------------------------------------------------ run lengths


@pytest.mark.parametrize("order", ["C", "F"])
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_run_lengths_give_the_bitmap_back(order, height, width, seed, share):
    dense = np.random.default_rng(seed).random((height, width)) < share
    runs = masks.run_lengths(dense, order)
    assert (runs[1:] > 0).all()
    np.testing.assert_array_equal(masks.from_run_lengths(runs, dense.shape, order), dense)


def test_run_lengths_begin_with_false():
    assert masks.run_lengths(np.array([[True, True], [False, True]])).tolist() == [0, 2, 1, 1]
    assert masks.run_lengths(np.array([[True, True], [False, True]]), "F").tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("runs", [[], [3], [5], [-1, 5], [2**62, 2**62, 2**62, 2**62, 4]])
def test_runs_that_do_not_fill_the_mask_are_refused(runs):
    with pytest.raises(ValueError, match="do not fill a 2x2 mask"):
        masks.from_run_lengths(np.array(runs, np.int64), (2, 2))


def test_the_old_name_of_crop_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="now called crop"):
        assert masks.cut is masks.crop
