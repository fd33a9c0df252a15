"""The scan finds what brute force finds, for any states, words and thresholds."""

import json

import numpy as np
import pytest

from ape_stream.index import benchmark, scan
from ape_stream.index.alignment import (
    Head,
    as_float32,
    fixed_point,
    float32_of,
    scores_of,
    state_codes,
)
from ape_stream.index.kernels import kernels
from ape_stream.index.levels import Directions, build_levels, product
from ape_stream.index.scan import Scanner, Words


class Rows:
    def __init__(self, states):
        self.all = states
        self.codes = state_codes(states)
        assert np.array_equal(self.codes.states(), states)
        self.read = 0

    def states(self, rows):
        return self.stored(rows).take(rows).states()

    def stored(self, rows):
        self.read += len(rows)
        return self.codes


@pytest.fixture(params=["numpy", "compiled"])
def loops(request, monkeypatch):
    """Both forms of the inner loops."""
    chosen = kernels() if request.param == "compiled" else None
    monkeypatch.setattr(scan, "kernels", lambda: chosen)
    return chosen


def rounded(states):
    return state_codes(states.astype(np.float32)).states()


def made_head(width, scale=0.56):
    zeros = np.zeros((width, width), np.float32)
    none = np.zeros(width, np.float32)
    return Head(zeros, none, none, np.float32(0), np.float32(scale), zeros[:1])


def made_states(rng, rows, width, kinds=12):
    """Around a few kinds, changing slowly along tracks, of one length as layer norm gives it."""
    spread = np.exp(-np.arange(width) / 6) + 0.01
    centres = rng.standard_normal((kinds, width)) * spread * 3 + rng.standard_normal(width)
    tracks = np.sort(rng.integers(0, max(2, rows // 20), rows))  # 0: no track
    of_track = centres[rng.integers(0, kinds, tracks.max() + 1)]
    states = of_track[tracks] + rng.standard_normal((rows, width)) * spread * 0.3
    states *= 12 / np.linalg.norm(states, axis=1, keepdims=True)
    shuffled = rng.permutation(rows)
    return rounded(states[shuffled]), tracks[shuffled].astype(np.int64), centres


def made_words(rng, states, centres, count):
    vectors = centres[rng.integers(0, len(centres), count)]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (0.5 * vectors + rng.standard_normal(vectors.shape) * 0.03).astype(np.float32)
    return vectors, -(states.astype(np.float32) @ vectors.T / 0.56).mean(0) - np.float32(3)


def brute_force(head, states, words):
    scores = scores_of(head.logits(states.astype(np.float32), words.vectors, words.biases))
    rows, columns = (scores >= words.thresholds).nonzero()
    logits = head.logits(states.astype(np.float32), words.vectors, words.biases)
    return rows, columns, logits[rows, columns]


def same(hits, reference):
    found = (hits.rows, hits.words, hits.logits)
    return all(np.array_equal(a, b) for a, b in zip(found, reference, strict=True))


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("seed", range(12))
def test_the_scan_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    width = int(rng.choice([5, 32, 64, 128, 256]))
    head = made_head(width)
    parts, levels, texts = [], [], None
    for _ in range(2):
        states, tracks, centres = made_states(rng, int(rng.integers(1, 400)), width)
        texts = texts or made_words(rng, states, centres, int(rng.integers(1, 8)))
        parts.append(Rows(states))
        levels.append(build_levels(states.astype(np.float32), tracks))
    vectors, biases = texts
    thresholds = rng.choice([0.0, 0.01, 0.3, 0.5, 0.7, 0.99, 1.0], len(vectors)).astype(np.float32)
    # A threshold that is one of the scores: that row is found.
    scores = scores_of(head.logits(parts[0].all.astype(np.float32), vectors, biases))
    thresholds[0] = rng.choice(scores[:, 0])
    words = Words(vectors, biases, thresholds)
    found = Scanner(parts, levels, head).search(words)
    for part, hits in zip(parts, found, strict=True):
        assert same(hits, brute_force(head, part.all, words))
    assert len(found[0].rows)


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3])
def test_many_words_with_few_and_with_many_rows_are_found(share):
    rng = np.random.default_rng(5)
    states, tracks, centres = made_states(rng, 1500, 64, kinds=40)
    vectors, biases = made_words(rng, states, centres, 40)
    head = made_head(64)
    scores = scores_of(head.logits(states.astype(np.float32), vectors, biases))
    words = Words(vectors, biases, np.quantile(scores, 1 - share, axis=0).astype(np.float32))
    parts = [(states[:900], tracks[:900]), (states[900:], tracks[900:])]
    levels = [build_levels(part.astype(np.float32), own) for part, own in parts]
    found = Scanner([Rows(part) for part, _ in parts], levels, head).search(words)
    for (part, _), hits in zip(parts, found, strict=True):
        assert same(hits, brute_force(head, part, words))


@pytest.mark.usefixtures("loops")
def test_few_states_are_read():
    rng = np.random.default_rng(1)
    states, tracks, centres = made_states(rng, 4000, 256, kinds=60)
    vectors, biases = made_words(rng, states, centres, 1)
    rows, head = Rows(states), made_head(256)
    scores = scores_of(head.logits(states.astype(np.float32), vectors, biases))
    words = Words(vectors, biases, np.quantile(scores, 0.995, axis=0))
    levels = build_levels(states.astype(np.float32), tracks)
    (hits,) = Scanner([rows], [levels], head).search(words)
    assert 0 < len(hits.rows) <= rows.read < 0.1 * len(states)


@pytest.mark.usefixtures("loops")
def test_states_without_any_structure_are_found_as_well():
    rng = np.random.default_rng(2)
    states = rounded(rng.standard_normal((500, 128)))
    vectors = rng.standard_normal((3, 128)).astype(np.float32)
    words = Words(vectors, np.zeros(3, np.float32), np.full(3, 0.9, np.float32))
    head = made_head(128)
    rows = Rows(states)
    levels = build_levels(states.astype(np.float32), np.zeros(500, np.int64))
    (hits,) = Scanner([rows], [levels], head).search(words)
    assert same(hits, brute_force(head, states, words))
    assert len(hits.rows) > 100


@pytest.mark.usefixtures("loops")
def test_one_row_and_equal_rows():
    head = made_head(8)
    states = np.ones((70, 8), np.float32)
    words = Words(np.ones((1, 8), np.float32), np.float32([0]), np.float32([0.5]))
    for count in (1, 70):
        levels = build_levels(states[:count], np.zeros(count, np.int64))
        (hits,) = Scanner([Rows(states[:count])], [levels], head).search(words)
        assert hits.rows.tolist() == list(range(count))


def test_the_benchmark_searches_what_it_says(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "PART", 2 * 32 * 40)
    benchmark.index_benchmark(rows=5000, width=32, rounds=2, as_json=True)
    one, twenty, none, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["words"], one["rows"], one["of_one_word"]) == (1, 5120, 1.0)
    assert (twenty["words"], twenty["rows"]) == (20, 5120)
    assert twenty["found"] > 0 == none["found"]


@pytest.mark.usefixtures("loops")
def test_the_search_of_made_up_rows_equals_brute_force(monkeypatch):
    monkeypatch.setattr(benchmark, "PART", 2 * 32 * 40)
    made, head = benchmark.MadeUpRows(5000, 32), made_head(32)
    words = made.words(6)
    parts = [part.states() for part in made.parts]
    found = Scanner([Rows(part) for part in parts], made.levels, head).search(words)
    for part, hits in zip(parts, found, strict=True):
        assert same(hits, brute_force(head, part, words))


@pytest.mark.parametrize("width", [1, 7, 8, 96, 256])
def test_fixed_point_of_float32_is_that_of_float64(width):
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((60, width)) * 10.0 ** rng.integers(-44, 38, (60, 1))
    rows[:30] *= 10.0 ** rng.integers(-12, 1, (30, width))
    rows[7] = 0
    rows = rows.astype(np.float32)
    for some in (rows[:1], rows[5:9], rows, rng.standard_normal((9, width)).astype(np.float32)):
        assert np.array_equal(fixed_point(some, width), fixed_point(some.astype(float), width))


@pytest.mark.parametrize("width", [1, 7, 128])
def test_states_are_rounded_to_16_bits_once(width):
    rng = np.random.default_rng(8)
    states = rng.standard_normal((60, width)) * 10.0 ** rng.integers(-44, 38, (60, 1))
    states[3], states[5], states[6] = 0, 1 - 2.0**-24, 2.0**-24 - 1  # would be rounded to 2^15
    states = states.astype(np.float32)
    codes = state_codes(states)
    again = codes.states()
    assert np.abs(codes.code).max(initial=0) <= 32767
    assert np.array_equal(state_codes(again).states(), again)
    largest = np.maximum(np.abs(states).max(axis=1, keepdims=True), 2.0**-100).astype(float)
    assert (np.abs(states.astype(float) - again) <= largest * 2.0**-15).all()
    # What a state is rounded to depends on nothing else.
    assert np.array_equal(state_codes(states[5:9]).code, codes.code[5:9])


def test_every_float16_is_the_same_as_float32():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 8)
    wide = float32_of(halves)
    assert np.array_equal(wide, halves.astype(np.float32))
    assert np.array_equal(np.signbit(wide), np.signbit(halves))
    assert float32_of(halves[:0]).shape == (0, 8)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("width", [5, 128, 256])
def test_compiled_products_are_those_of_numpy(kind, width):
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((40, width)) * 2.0 ** rng.integers(-30, 6, (40, width))
    rows[:9] *= 2.0 ** rng.integers(-60, 4, (9, 1))
    rows[3] = 0
    if kind == "bfloat16":
        states = (rows.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        states = rows.astype(kind)
    texts = fixed_point(rng.standard_normal((6, width)).astype(np.float32), width)
    own, columns = np.sort(rng.integers(0, 40, 90)), rng.integers(0, 6, 90)
    codes = state_codes(as_float32(states))
    wanted = (codes.states().astype(float) @ texts.T)[own, columns]
    for least in (-np.inf, 0.1):
        limits = np.full(6, least)
        products, kept = kernels().products(codes, own, texts, columns, limits)
        assert np.array_equal(kept, np.flatnonzero(wanted >= least))
        assert np.array_equal(products, wanted[kept])
    assert 0 < len(kept) < 90


@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_threads_share_the_parts_and_find_the_same(cores, monkeypatch):
    monkeypatch.setattr(scan.os, "cpu_count", lambda: cores)
    rng = np.random.default_rng(1)
    made = [made_states(rng, rows, 32) for rows in (90, 1, 200, 60, 40)]
    vectors, biases = made_words(rng, made[0][0], made[0][2], 9)
    words, head = Words(vectors, biases, np.full(9, 0.3, np.float32)), made_head(32)
    parts = [Rows(states) for states, _, _ in made]
    levels = [build_levels(states, tracks) for states, tracks, _ in made]
    found = Scanner(parts, levels, head).search(words)
    assert sum(len(hits.rows) for hits in found) > 20
    for part, hits in zip(parts, found, strict=True):
        assert same(hits, brute_force(head, part.all, words))


@pytest.mark.parametrize("size", [1e-4, 1, 1e5])
def test_every_row_is_a_candidate_at_its_own_logit(size, loops):
    rng = np.random.default_rng(3)
    # Few directions and long tracks: what decides is how wide the segments are.
    states = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 32))
    states[::50] = rng.standard_normal((6, 32))
    states = rounded(size * states)
    vectors = rng.standard_normal((3, 32))
    vectors = vectors.astype(np.float32)
    biases, head = np.zeros(3, np.float32), made_head(32, 0.56 * size)
    levels = build_levels(states, np.repeat([1, 2, 0], 100))
    logits = head.logits(states, vectors, biases)
    slopes = Directions([levels], head).slopes(vectors, biases)(0)
    for row in range(300):
        rows, words = levels.candidates(slopes, logits[row], loops)
        assert set(words[rows == row].tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("count", "inner", "columns"), [(0, 5, 3), (1, 65, 1), (700, 65, 1),
                                                         (900, 65, 20), (60, 65, 300)])  # fmt: skip
def test_a_product_in_blocks_is_that_product(count, inner, columns):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((count, inner)), rng.standard_normal((inner, columns))
    for kind in (np.float32, np.float64):
        one, other = left.astype(kind), right.astype(kind)
        got = product(one, other)
        assert got.dtype == kind
        assert got.shape == (count, columns)
        assert np.allclose(got, left @ right, atol=1e-4)
