"""`index`: what is on disk follows from the videos alone, however often a run was killed."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import write_clip
from stand_in import install

from ape_stream import index
from ape_stream.cli.main import main
from ape_stream.errors import ConfigError
from ape_stream.index import levels_file
from ape_stream.index.alignment import Head
from ape_stream.index.cells import pack_maps
from ape_stream.indexing import payload, writing
from ape_stream.indexing.keeping import Keep, Keeper, Reference
from ape_stream.indexing.parts import IndexedFrame
from ape_stream.indexing.sink import IndexSink
from ape_stream.indexing.tracking import RowTracker

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = ("--model", "queries:made", "--keep", "8")


@pytest.fixture
def place(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("stand_in_model", None)


def make(*words, out="IDX"):
    return main(["index", *OPTIONS, "--out-dir", out, *words])


def files_of(root):
    own = (path for path in sorted(Path(root).rglob("*")) if ".shards" not in path.parts)
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in own
        if path.is_file() and path.parts[-2] != "levels"
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(place):
    Path("in").mkdir()
    write_clip(place / "in" / "a.mp4", frames=140)
    write_clip(place / "in" / "b.mp4", frames=5)
    assert make("in", out="whole") == 0
    for seen in (".shards/clips/a/000000.shard", "parts/a/000000.rows.arrow"):
        process = start(place)
        wait_for(place / "IDX" / seen, process)
        process.kill()
        process.wait(60)
    # Cut short, as by a disk: made again.
    parts = list(Path("IDX/parts").rglob("*.arrow"))
    for path in parts[:1]:
        path.write_bytes(path.read_bytes()[:-9])
    assert make("in") == 0
    assert files_of("IDX") == files_of("whole")
    assert not list(Path("IDX").rglob("*.shard"))
    again = files_of("IDX")
    assert make("in") == 0  # nothing is left to do
    assert files_of("IDX") == again


def start(place):
    path = os.pathsep.join([str(place), *(str(ROOT / p) for p in (".", "model", "nodes"))])
    command = [sys.executable, "-m", "ape_stream", "index", "in", *OPTIONS, "--out-dir", "IDX"]
    nowhere = subprocess.DEVNULL
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, cwd=place, env=env, stdout=nowhere, stderr=nowhere)


def wait_for(path, process):
    deadline = time.monotonic() + 90
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a video of six frames, its index, and what the run that made it printed."""
    folder = tmp_path_factory.mktemp("made")
    install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        write_clip(folder / "v.mp4", frames=6)
        assert main(["index", "v.mp4", "--model", "queries:made", "--out-dir", "IDX"]) == 0
        yield folder
    sys.modules.pop("stand_in_model", None)


def test_an_index_is_opened_and_measured(made, capsys):
    summary = json.loads((made / "IDX/summary.json").read_text())
    assert (summary["clips"], summary["frames"]) == (1, 6)
    assert summary["rows"] + summary["dropped"] == 6 * 12
    store = index.open(made / "IDX").store
    (part,) = store.parts
    assert 6 < part.info.rows == summary["rows"] < 72
    assert part.rows.reference.min() >= 0.15
    assert part.rows.track.max() > 0
    ids = part.rows.track
    assert [track.id for track in store.tracks(1)] == np.unique(ids[ids > 0]).tolist()
    assert main(["index", "--stats", "--json", "IDX"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["rows_per_frame"] == round(part.info.rows / 6, 2)
    assert set(stats["recheck"]) == {"0.3", "0.5", "0.7"}
    on_disk = sum(path.stat().st_size for path in (made / "IDX/parts").rglob("*.*"))
    kinds = ("states", "coarse", "masks", "boxes", "frames", "levels")
    assert sum(stats["bytes"][name] for name in kinds) == on_disk
    assert main(["index", "--stats", "IDX"]) == 0
    assert "6 frames" in capsys.readouterr().out


def test_the_first_search_finds_its_bounds_made(made, monkeypatch):
    path = made / "IDX/parts/v/000000.levels.arrow"
    whole = path.read_bytes()

    def levels():
        found = index.open(made / "IDX")
        return found.levels(found.store.parts[0])

    damaged = (whole[:-99], whole.replace(whole[2000:2032], bytes(32)), b"")
    with monkeypatch.context() as patch:
        patch.setattr(levels_file, "build_levels", None)  # what calls it fails
        first = levels()
        for content in damaged:
            path.unlink()  # mapped by what was opened before
            path.write_bytes(content)
            with pytest.raises(TypeError):
                levels()
    path.unlink()
    assert np.array_equal(levels().codes, first.codes)
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("made")
def test_another_plan_is_refused(capsys):
    assert make("v.mp4", out="IDX") == 2
    assert "keep.rows: 50 then, 8 now" in capsys.readouterr().err
    assert main(["index", "v.mp4", "--keep", "none"]) == 2
    assert "keep is a number of queries" in capsys.readouterr().err


def test_an_index_of_other_settings_is_not_gone_on_with(place, capsys):
    for name in ("a.mp4", "b.mp4"):
        write_clip(place / name, frames=3)
    assert make("a.mp4") == 0
    path = place / "IDX/manifest.json"
    path.write_text(path.read_text().replace('"resizing": "64"', '"resizing": "32"'))
    capsys.readouterr()
    assert make("a.mp4", "b.mp4", "--extend") == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "resizing" in text]
    assert "indexed with other settings (resizing: 32 then, 64 now)" in line
    (missing,) = index.open("IDX").store.missing  # its parts are not those of this manifest
    assert "is of another index" in missing.reason
    assert make("a.mp4", "b.mp4", "--overwrite") == 0
    assert len(index.open("IDX").store.parts) == 2


def test_parts_of_clips_that_are_gone_are_removed(place):
    for name in ("one", "two"):
        (place / name).mkdir()
        write_clip(place / name / "v.mp4", frames=3)
    assert make("one") == 0
    assert (place / "IDX/parts/v").is_dir()
    assert make("one", "two", "--extend") == 0  # with two folders, names begin with these
    assert sorted(path.name for path in (place / "IDX/parts").iterdir()) == ["one", "two"]
    names = {video.name for video in index.open("IDX").store.videos.values()}
    assert names == {"one/v", "two/v"}


@pytest.mark.usefixtures("made")
def test_an_output_of_a_run_is_the_index_of_its_files():
    run = ["annotate", "v.mp4", "--prompt", "cup", "--model", "queries:made"]
    assert main([*run, "--output", "index:LIVE"]) == 0
    live, files = index.open("LIVE").store, index.open("IDX").store
    for name in ("query", "box", "reference", "state", "track"):
        one, other = (getattr(store.parts[0].rows, name) for store in (live, files))
        assert np.array_equal(one, other)
    assert live.manifest.head == files.manifest.head
    assert main([*run, "--output", "index:LIVE"]) == 2  # not replaced
    assert main([*run, "--output", "index:LIVE", "--overwrite"]) == 0


def test_a_model_without_queries_is_refused(folder, capsys):
    write_clip(folder / "v.mp4", frames=3)
    assert main(["index", "v.mp4", "--model", "fake:x", "--out-dir", "IDX"]) != 0
    assert "gives no queries" in capsys.readouterr().err


def frame_of(rng, boxes, scores, k=0):
    count = len(boxes)
    return IndexedFrame(
        index=k,
        time_s=k / 10,
        pts=None,
        time_base=(1, 90_000),
        file=None,
        size=(100, 200),
        cells=(4, 8),
        filled=(4.0, 7.5),
        query=np.arange(count, dtype=np.int32),
        box=np.array(boxes, np.float32).reshape(-1, 4),
        reference=np.array(scores, np.float32),
        exponent=np.full(count, -12, np.int16),
        state=rng.integers(-999, 999, (count, 3), np.int16),
        drawn=np.full(count, 3, np.uint8),
        masks=pack_maps(rng.integers(-9, 9, (count, 4, 8), np.int8), None),
        dropped=2,
        centre=np.zeros((1, 2), np.float16),
        radius=np.ones(1, np.float32),
        remainder=np.ones(1, np.float32),
        members=np.ones(1, np.int32),
        coarse=np.arange(7, dtype=np.uint8),
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_payload_is_the_frame_again(count):
    rng = np.random.default_rng(0)
    frame = frame_of(rng, rng.random((count, 4)), rng.random(count))
    data = payload.to_payload(frame)
    again = payload.from_payload(data)
    assert payload.to_payload(again) == data
    assert again.state.dtype == np.int16
    assert np.array_equal(again.box, frame.box)
    assert np.array_equal(again.masks.numbers, frame.masks.numbers)


def test_rows_of_one_object_share_its_track():
    rng, tracker = np.random.default_rng(0), RowTracker()
    near = [[0.1, 0.1, 0.3, 0.5], [0.1, 0.1, 0.31, 0.5]]
    far = [0.6, 0.2, 0.9, 0.8]
    empty = [0.5, 0.5, 0.5, 0.5]
    ids = [
        tracker.update(frame_of(rng, [*near, far, empty], [0.8, 0.9, 0.5, 0.4], k)).tolist()
        for k in range(3)
    ]
    assert ids[0] == [0, 0, 0, 0]
    first, second, third, fourth = ids[2]
    assert first == second != third
    assert min(first, third) > 0 == fourth
    tracks = tracker.tracks(7)
    assert [(t.id, t.video, t.first_frame, t.last_frame) for t in tracks] == [
        (1, 7, 1, 2),
        (2, 7, 1, 2),
    ]


STATES = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 0]] * np.float32([[3], [2.9], [2], [0.1], [1]])
BOXES = np.float32([[0, 0, 0.4, 0.4], [0, 0, 0.4, 0.41], [0, 0, 0.4, 0.4],
                    [0.5, 0.5, 1, 1], [0.5, 0, 1, 0.4]])  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        # 1 is what 0 is, a bit weaker: never seen. 2 is at the same place, for another word.
        (Keep(score=0.7, rows=None), [0, 2, 4]),
        (Keep(score=0.7, rows=2), [0, 2]),
        (Keep(score=0.99, rows=None), []),
        (Keep(score=None, rows=None), [0, 1, 2, 3, 4]),
        (Keep(score=None, rows=2), [0, 1]),
    ],
)
def test_queries_that_a_reference_word_finds_are_kept(keep, kept):
    keeper = Keeper(HEAD, WORDS, keep)
    found, dropped = keeper._divided(STATES, keeper._logits(STATES), BOXES, None)
    assert found.tolist() == kept
    assert sorted([*kept, *dropped.queries.tolist()]) == list(range(len(STATES)))
    if dropped.coarse is None:  # everything is kept, or nothing that they could be next to
        assert not kept or len(kept) == len(STATES)
        return
    near = STATES[found][dropped.coarse.base] + dropped.coarse.code * dropped.coarse.step[:, None]
    lost = np.linalg.norm(STATES[dropped.queries] - near, axis=1)
    assert (lost <= dropped.coarse.error).all()
    assert dropped.coarse.error.max() < 0.02


HEAD = Head(
    weight=np.eye(3, dtype=np.float32),
    offset=np.zeros(3, np.float32),
    bias_weight=np.zeros(3, np.float32),
    bias_offset=np.float32(0),
    scale=np.float32(1),
    basis=np.eye(3, dtype=np.float32),
)
WORDS = Reference(("a", "b", "c"), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))


@pytest.mark.usefixtures("made")
def test_an_output_can_be_asked_while_it_is_written(monkeypatch):
    monkeypatch.setattr(writing, "PART_FRAMES", 2)
    seen = []
    plain = IndexSink.write

    def write(self, result):
        plain(self, result)
        seen.append(0)
        if len(seen) == 1:
            with pytest.raises(ConfigError, match="has not ended, or was killed"):
                index.open("GOING")
        else:
            opened = index.open("GOING")
            seen[-1] = len(list(opened.frames()))
            assert "has not ended" in opened.store.videos[1].problem
            rows = np.concatenate([part.rows.track for part in opened.store.parts])
            assert set(rows.tolist()) - {0} <= {track.id for track in opened.store.tracks(1)}

    monkeypatch.setattr(IndexSink, "write", write)
    run = ["annotate", "v.mp4", "--prompt", "cup", "--model", "queries:made"]
    assert main([*run, "--output", "index:GOING"]) == 0
    assert seen == [0, 2, 2, 4, 4, 6]
    monkeypatch.undo()
    monkeypatch.setattr(writing, "PART_FRAMES", 2)
    assert main([*run, "--output", "index:WHOLE"]) == 0
    assert index.open("GOING").store.videos[1].problem is None
    assert {n: d for n, d in files_of("GOING").items() if "levels" not in n} == {
        n: d for n, d in files_of("WHOLE").items() if "levels" not in n
    }
