"""Compiled loops of indexing: bit for bit what the plain forms give, and the same index."""

from itertools import pairwise

import numpy as np
import pytest
from clips import write_clip
from stand_in import install
from test_cells import made
from test_indexing import BOXES, HEAD, STATES, WORDS, files_of

from ape_stream.cli.main import main
from ape_stream.index.alignment import rounded_states
from ape_stream.index.cells import STEPS, inside_boxes
from ape_stream.index.dropped.bounds import nearest_of_far
from ape_stream.index.dropped.coarse import differences
from ape_stream.indexing import keeping, loops, tracking
from ape_stream.indexing.keeping import Keep, Keeper
from ape_stream.indexing.packing import packed
from ape_stream.indexing.survivors import survivors
from ape_stream.indexing.tracking import grouped


def same(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def drawn_boxes(rng, count):
    """Boxes of which many are near one another, some are equal and some have no area."""
    kinds = np.sort(rng.random((4, 2, 2)), axis=1).reshape(4, 4)
    boxes = kinds[rng.integers(0, 4, count)] + rng.choice([0, 0.01, 0.05], (count, 1))
    boxes[rng.random(count) < 0.1, 2:] = 0.5
    boxes[rng.random(count) < 0.1, :] = 0.5
    return boxes.astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_survivors(seed):
    rng = np.random.default_rng(seed)
    queries, words = int(rng.integers(1, 40)), int(rng.integers(1, 60))
    logits = np.round(rng.standard_normal((words, queries)), 1).astype(np.float32)  # ties
    boxes = drawn_boxes(rng, queries)
    for floor in (-0.5, 0.3, 9.0):
        plain = survivors(logits, boxes, floor)
        same(survivors(logits, boxes, floor, loops.loops()), plain)
    none = logits[:, :0], boxes[:0], 0.0
    same(survivors(*none, loops.loops()), survivors(*none))


@pytest.mark.parametrize("seed", range(8))
def test_rows_of_one_object(seed):
    rng = np.random.default_rng(seed)
    for count in (0, 1, 30):
        boxes = 300 * drawn_boxes(rng, count)
        scores = np.round(rng.random(count), 1).astype(np.float32)
        same(grouped(boxes, scores, loops.loops()), grouped(boxes, scores))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("margin", [None, 0.05])
def test_masks(seed, margin):
    logits, boxes = made(seed)
    if seed % 3 == 0:  # rows of whole bytes
        logits = np.tile(logits, (1, 2, 8))
    steps = (logits * STEPS).astype(np.int8)
    cells = steps.shape[1:]
    for filled in ((float(cells[0]), cells[1] - 0.5), (cells[0] / 2, float(cells[1]))):
        for count in (len(steps), 0):
            edges = inside_boxes(boxes[:count], cells, filled, margin)
            plain, drawn = packed(steps[:count], filled, edges)
            fast, surely = packed(steps[:count], filled, edges, loops.loops())
            same(
                (fast.bits, fast.counts, fast.numbers, surely),
                (plain.bits, plain.counts, plain.numbers, drawn),
            )


@pytest.mark.parametrize("seed", range(8))
def test_what_dropped_states_differ_by_and_their_spheres(seed):
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 60)), int(rng.choice([1, 16, 128, 200]))
    kept = (rng.standard_normal((7, width)) * 4).astype(np.float32)
    base = rng.integers(0, 7, count)
    states = kept[base] + (rng.standard_normal((count, width)) * 0.3).astype(np.float32)
    states[0] = kept[base[0]]
    same(loops.loops().differences(states, kept, base), differences(states, kept, base))
    points = np.round(rng.standard_normal((count, 3)))  # ties
    distances = np.square(points[:, None] - points).sum(axis=2).astype(np.float32)
    for spheres in (1, 4, 99):
        wanted = nearest_of_far(distances, spheres)
        same([loops.loops().nearest_of_far(distances, spheres)], [wanted])


def test_an_index_has_the_same_bytes(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "v.mp4", frames=12)
    options = ("v.mp4", "--model", "queries:made", "--prompt", "cup")
    for name, form in (("plain", None), ("compiled", loops.loops())):
        monkeypatch.setattr(keeping, "loops", lambda form=form: form)
        monkeypatch.setattr(tracking, "loops", lambda form=form: form)
        assert main(["annotate", *options, "--output", f"index:{name}"]) == 0
    assert files_of("compiled") == files_of("plain")


@pytest.mark.parametrize("width", [1, 5, 128])
def test_states_in_16_bits(width):
    rng = np.random.default_rng(width)
    states = rng.standard_normal((60, width)) * 10.0 ** rng.integers(-40, 30, (60, 1))
    states[0] = 0
    states[1] = 1 - 2.0**-24  # rounded up to one more than there is room for
    states[2] *= 2.0**-120
    states = np.clip(states, -3e38, 3e38).astype(np.float32)
    (got, rounded), (wanted, plain) = loops.loops().codes(states), rounded_states(states)
    same((*got, rounded), (*wanted, plain))


def test_products_with_reference_words_are_small_ones():
    keeper = Keeper(HEAD, WORDS, Keep())
    logits = keeper._logits(STATES)
    wanted = WORDS.vectors @ STATES.T / HEAD.scale + WORDS.biases[:, None]
    assert np.allclose(logits, wanted, atol=1e-5)
    blocks = keeping._blocks(np.arange(150.0, dtype=np.float32).reshape(50, 3))
    assert blocks.shape == (3, 24, 3)
    assert np.array_equal(blocks.reshape(-1, 3)[:50].ravel(), np.arange(150))
    assert not blocks.reshape(-1, 3)[50:].any()
    assert all(len(one) == len(other) for one, other in pairwise(blocks))
    assert len(BOXES) == len(STATES)
