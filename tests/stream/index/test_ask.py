"""What an index answers equals what a live run finds, and it says where that is not certain."""

import html
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import ftfy
import numpy as np
import pytest
import torch
from made_index import (
    SIZE,
    TOWER,
    WORDS,
    live,
    made_index,
    manifest_of,
    same_instances,
    write_bank,
)

from ape_model.text.cache import EmbeddingCache, EmbeddingSpace
from ape_stream import masks
from ape_stream.errors import ConfigError, PromptError, UsageError
from ape_stream.index.answer import AnswerTrack, FoundFrame
from ape_stream.index.asking import open_index
from ape_stream.index.database import Database
from ape_stream.index.part import Part
from ape_stream.index.vectors import Embeddings
from ape_stream.types import Instances, Prompt, PromptKind
from ape_stream.values.texts import clean_text

pytest.importorskip("pyarrow")

HEAVY = {"av", "ftfy", "matplotlib", "pandas", "PIL", "pyarrow.compute", "scipy", "torch", "zmq"}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """An index that dropped nothing."""
    return made_index(tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """An index that dropped what no word fits."""
    return made_index(tmp_path_factory.mktemp("some"), seed=3, keep=0.7)


def by_frame(answer):
    return {frame.index: frame.instances() for frame in answer.frames}


@pytest.mark.parametrize("threshold", [0.05, 0.5])
@pytest.mark.parametrize("words", [WORDS, ("sky",), ("dog", "cat")])
def test_the_answer_equals_a_live_run(everything, threshold, words):
    answer = open_index(everything.root, bank=everything.bank).ask(words, threshold=threshold)
    found = by_frame(answer)
    reference = live(everything, words, [threshold] * len(words))
    for index, expected in enumerate(reference):
        got = found.get(index, Instances.empty(SIZE))
        assert same_instances(got, expected)
    for frame in answer.frames:  # known before any mask was made
        masked = frame.make()
        for name in ("scores", "prompt_ids", "boxes"):
            assert np.array_equal(getattr(frame, name), getattr(masked, name))
        assert np.array_equal(frame.objects, masked.track_ids)
    assert answer.exact
    assert answer.searched == len(reference)
    assert sum(map(len, reference)) == sum(len(track.frames) for track in answer.tracks)


def test_masks_are_made_where_they_decide_and_where_they_are_asked_for(everything, monkeypatch):
    made, plain = [], Part.masks
    monkeypatch.setattr(Part, "masks", lambda *given: made.append(given) or plain(*given))
    answer = open_index(everything.root, bank=everything.bank).ask("sky", threshold=0.5)
    assert len(made) < len(answer.frames) / 2
    assert len(answer.frames[-1].boxes) == len(answer.frames[-1]) > 0
    before = len(made)
    assert len(answer.frames[-1].boxes) > 0  # made once
    assert len(made) == before > 0


def test_no_pixel_of_a_thing_is_out_of_its_reach(everything):
    for part in open_index(everything.root, bank=everything.bank).store.parts:
        for frame in range(len(part.frames.index)):
            rows = np.arange(*part.rows_of(frame).indices(len(part.rows.frame)))
            found = part.masks(rows, np.zeros(len(rows), np.bool_))
            reach = part.reach(rows) * np.tile([SIZE[1], SIZE[0]], 2)
            own = masks.boxes(found)
            some = np.flatnonzero(own[:, 2] > own[:, 0])
            assert len(some) > 5
            assert (reach[some, :2] <= own[some, :2]).all()
            assert (own[some, 2:] <= reach[some, 2:]).all()


def test_frames_where_a_dropped_query_may_count_are_listed(some):
    index = open_index(some.root, bank=some.bank)
    listed = certain = 0
    for threshold in (0.1, 0.3, 0.6):
        answer = index.ask(WORDS, threshold=threshold)
        unsure = {one.index for one in answer.recheck}
        found = by_frame(answer)
        for at, expected in enumerate(live(some, WORDS, [threshold] * len(WORDS))):
            if at not in unsure:
                certain += 1
                assert same_instances(found.get(at, Instances.empty(SIZE)), expected)
        listed += len(unsure)
        assert answer.exact == (not unsure)
    assert listed
    assert certain
    assert "may score up to 0." in index.ask("pole", threshold=0.05).recheck[0].reason


def test_a_range_of_time(everything):
    index = open_index(everything.root, bank=everything.bank)
    answer = index.ask("cat, sky", threshold=0.3, start_s=0.3, end_s=0.8)
    expected = live(everything, ("cat", "sky"), [0.3, 0.3])
    frames = {frame.index for frame in answer.frames}
    assert frames == {k for k in range(3, 8) if len(expected[k])}
    assert answer.searched == 5
    assert index.ask("cat", start_s=100).searched == 0
    with pytest.raises(UsageError, match="range of time is empty"):
        index.ask("cat", start_s=2, end_s=2)


def test_tracks(everything):
    answer = open_index(everything.root, bank=everything.bank).ask(WORDS, threshold=0.2)
    named = [track for track in answer.tracks if track.id is not None]
    assert len({track.id for track in named}) == len(named)
    assert any(track.id is None for track in answer.tracks)
    for track in answer.tracks:
        assert len(track.frames) == 1 or track.id is not None
        assert track.scores[track.best] == track.scores.max()
        frame, at = track.frames[track.best], track.positions[track.best]
        made = frame.instances()
        assert np.array_equal(track.mask(track.best).bitmap, made.masks[at].bitmap)
        assert np.array_equal(track.boxes[track.best], made.boxes[at])
        assert (made.track_ids[at] or None) == track.id
        assert WORDS[made.prompt_ids[at]] == track.prompt.text
    # Stuff is one region of a frame, so it is one track; things keep the index's own tracks.
    assert sum(track.prompt.text == "sky" for track in answer.tracks) == 1
    things = [track for track in named if track.prompt.text != "sky"]
    assert all(track.object in everything.tracks for track in things)


def test_an_object_is_the_same_under_any_words(everything):
    index = open_index(everything.root, bank=everything.bank)

    def objects(words):
        return {
            (track.object, track.prompt.text, *track.indices)
            for track in index.ask(words, threshold=0.3).tracks
        }

    assert objects(["cat"]) == {found for found in objects(WORDS) if found[1] == "cat"}


def test_ranges_of_time_join_small_gaps():
    def frame(time_s):
        return FoundFrame(None, 0, time_s, None, None, SIZE, *[np.ones(1, np.float32)] * 3, None)

    times = (0.0, 0.5, 1.4, 3.0, 3.1, 9.0)
    track = AnswerTrack(None, 1, 1, None, tuple(map(frame, times)), (0,) * 6)
    assert track.ranges == [(0.0, 1.4), (3.0, 3.1), (9.0, 9.0)]


def test_thresholds_of_single_words(everything):
    index = open_index(everything.root, bank=everything.bank)
    answer = index.ask([{"text": "cat", "threshold": 0.8}, "dog"], threshold=0.3)
    found = by_frame(answer)
    for at, expected in enumerate(live(everything, ("cat", "dog"), [0.8, 0.3])):
        assert same_instances(found.get(at, Instances.empty(SIZE)), expected)
    assert index.ask("cat").prompts[0].threshold == 0.5  # that of the index


def test_a_sentence_is_answered_as_a_name_and_says_so(everything):
    index = open_index(everything.root, bank=everything.bank)
    index._embeddings._known["the red one"] = everything.embeddings[0]
    answer = index.ask("the red one, dog, red car", threshold=0.3)
    assert answer.modes == ("sentence as a name", "vocabulary", "vocabulary")
    assert not answer.exact
    assert "answered as a name" in answer.notes[0]
    name = Prompt("the red one", kind=PromptKind.VOCABULARY)
    assert index.ask([name], threshold=0.3).exact


def test_many_words(everything):
    index = open_index(everything.root, bank=everything.bank)
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in range(700)]
    # Most are opposites of a word that fits: they fit nothing.
    rows = rng.standard_normal((700, 16)) * 0.1 - everything.embeddings[0]
    index._embeddings._known |= zip(words, rows.astype(np.float32), strict=True)
    index._embeddings._known["w650"] = everything.embeddings[0]
    answer = index.ask(words, threshold=0.5)
    alone = index.ask("cat", threshold=0.5)
    for frame in alone.frames:
        (same,) = (one for one in answer.frames if one.index == frame.index)
        assert np.array_equal(same.boxes[same.prompt_ids == 650], frame.boxes)


def test_words_that_cannot_be_asked(everything):
    index = open_index(everything.root, bank=everything.bank)
    with pytest.raises(PromptError, match="no prompt"):
        index.ask("")
    with pytest.raises(PromptError, match="more than 1000"):
        index.ask("x" * 1001)
    with pytest.raises(PromptError, match="not within"):
        index.ask("cat", threshold=1.5)
    with pytest.raises(UsageError, match="no video is called 'other'; there are: clip"):
        index.ask("cat", videos=["other"])


def test_a_damaged_part_is_named_and_the_rest_answers(tmp_path):
    made = made_index(tmp_path, seed=1)
    whole = open_index(made.root, bank=made.bank).ask("cat, dog", threshold=0.3)
    path = made.root / "parts/clip/000001.rows.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    answer = open_index(made.root, bank=made.bank).ask("cat, dog", threshold=0.3)
    assert [one.info.number for one in answer.missing] == [1]
    assert "000001.rows.arrow" in answer.missing[0].reason
    assert not answer.exact
    rest = [frame.index for frame in whole.frames if not 4 <= frame.index < 8]
    assert [frame.index for frame in answer.frames] == rest


def test_a_part_of_an_index_of_other_weights_is_named_as_such(tmp_path):
    for name in ("this", "other"):
        (tmp_path / name).mkdir()
    made, other = made_index(tmp_path / "this"), made_index(tmp_path / "other", seed=1)
    part = "parts/clip/000001.rows.arrow"
    shutil.copy(other.root / part, made.root / part)
    answer = open_index(made.root, bank=made.bank).ask("cat", threshold=0.3)
    assert [one.info.number for one in answer.missing] == [1]
    assert "000001.rows.arrow is of another index, or of other weights" in answer.missing[0].reason


def test_a_bank_of_another_tower(everything, tmp_path):
    write_bank(tmp_path / "bank", everything.embeddings, tower="ef" * 32)
    with pytest.raises(ConfigError, match="another text tower"):
        open_index(everything.root, bank=tmp_path / "bank")


def test_cached_words_need_nothing_that_is_slow_to_import(everything, tmp_path):
    space = EmbeddingSpace(TOWER, "float32", "eot")
    cache = EmbeddingCache(tmp_path / "ape_stream" / "prompts")
    for word, row in zip(WORDS, everything.embeddings, strict=True):
        cache.put(space, word, torch.from_numpy(row))
    code = (
        "import sys; from ape_stream.cli.main import main;"
        f"main(['ask', {str(everything.root)!r}, 'Cat, red  car', '--threshold=.3', '--json']);"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, imported = ran.stdout.splitlines()
    index = open_index(everything.root, bank=everything.bank)
    expected = index.ask("Cat, red  car", threshold=0.3)
    assert json.loads(answer)["tracks"] == json.loads(json.dumps(expected.to_json()))["tracks"]
    assert imported == "[]"


def test_what_is_cached_is_read_as_the_model_reads_it(everything, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = EmbeddingCache(tmp_path / "ape_stream" / "prompts")
    cache.put(EmbeddingSpace(TOWER, "float32", "eot"), "cat", torch.from_numpy(np.ones(16, "f4")))
    embeddings = Embeddings(open_index(everything.root).store.manifest)
    assert embeddings.of(["CAT"]).tolist() == [[1.0] * 16]
    (file,) = cache.root.glob("*/*")
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    assert Embeddings(embeddings.manifest)._cached("cat") is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Caf\u00e9 &amp;amp; bar", "caf\u00e9 & bar"),
        (" Red\tCar ", "red car"),
        ("doesn\u00e2\u20ac\u2122t", "doesn't"),
    ],
)
def test_texts_are_cleaned_as_the_model_cleans_them(text, clean):
    assert clean_text(text) == clean


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_embeddings_are_rounded_as_the_network_takes_them(everything, dtype):
    manifest = manifest_of(everything, None, dtype=dtype)
    rows = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    embeddings = Embeddings(manifest)
    embeddings._known |= {f"w{k}": row for k, row in enumerate(rows)}
    expected = torch.from_numpy(rows).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(embeddings.of([f"w{k}" for k in range(400)]), expected)


@pytest.mark.parametrize("seed", range(3))
def test_plain_texts_need_no_repair(seed):
    rng = np.random.default_rng(seed)
    for length in rng.integers(1, 30, 60).tolist():
        text = "".join(map(chr, rng.integers(9, 130, length)))
        repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
        assert clean_text(text) == " ".join(repaired.split()).lower()


def test_a_video_that_is_not_whole_is_named(tmp_path):
    made = made_index(tmp_path)
    with Database(made.root / "index.sqlite", write=True) as database:
        (video,) = database.videos()
        database.add([replace(video, problem="the disk was full")])
    answer = open_index(made.root, bank=made.bank).ask(WORDS[0], threshold=0.3)
    assert answer.notes == (f"{video.name} is not whole: the disk was full",)
    assert answer.frames
