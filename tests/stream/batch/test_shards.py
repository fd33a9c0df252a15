"""Shards are whole or not there; plans say what differs."""

import pytest

from ape_stream.batch.clips import Clip
from ape_stream.batch.plan import Plan, changes_of_clips, differences, load_plan
from ape_stream.batch.shards import ShardFolder
from ape_stream.errors import ConfigError


@pytest.fixture
def shards(tmp_path):
    folder = ShardFolder(tmp_path / "clip")
    folder.write(0, [b"one\n", b"", b"\x00\nbinary\n"])
    folder.write(1, [b"four"], {"frames": 4, "problem": None})
    return folder


def test_payloads_of_any_bytes_come_back(shards):
    assert list(shards.frames()) == [b"one\n", b"", b"\x00\nbinary\n", b"four"]
    assert shards.last() == 1
    assert shards.footer(1).end == {"frames": 4, "problem": None}


def test_a_shard_without_frames_can_hold_the_end(shards):
    shards.write(1, [b"four"])
    assert shards.last() is None
    shards.write(2, [], {"frames": 4})
    assert shards.last() == 2
    assert len(list(shards.frames())) == 4


def test_the_end_is_known_once_all_shards_are_there(shards):
    assert shards.end() == {"frames": 4, "problem": None}
    shards.path(0).unlink()
    assert shards.end() is None
    shards.write(0, [b"one"])
    shards.path(1).unlink()
    assert shards.end() is None


@pytest.mark.parametrize("cut", [1, 5, 20, 10**9])
def test_a_shard_that_is_cut_short_is_not_there(shards, cut):
    path = shards.path(1)
    path.write_bytes(path.read_bytes()[:-cut] if cut < 10**9 else b"")
    assert shards.numbers() == {0}
    assert not path.exists()


def test_a_shard_with_a_changed_byte_is_found_and_removed(shards):
    path = shards.path(0)
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    with pytest.raises(ValueError, match="damaged"):
        list(shards.frames())
    assert shards.numbers() == {1}


def test_a_plan_comes_back_and_says_what_differs(tmp_path):
    clips = (Clip("a", "a.mp4", 3, "x"), Clip("b", "b.mp4", 4, "y"))
    plan = Plan({"prompts": ["cup"], "model": {"plugin": "ape"}}, {"formats": ["coco"]}, clips)
    plan.save(tmp_path / "plan.json")
    same = load_plan(tmp_path / "plan.json")
    assert same == plan
    assert same.write_digest == plan.write_digest
    other = Plan({"prompts": ["mug"], "model": {"plugin": "ape"}}, {}, (clips[0],))
    assert differences(plan.find, other.find) == ['prompts: ["cup"] then, ["mug"] now']
    assert changes_of_clips(plan, other).lines() == ["missing: b"]
    assert load_plan(tmp_path / "none.json") is None


def test_of_many_prompts_those_that_differ_are_named():
    def prompts(*words, **more):
        return {"prompts": [{"text": w, "kind": None, "stuff": False, **more} for w in words]}

    many = [f"word {k}" for k in range(50)]
    assert differences(prompts(*many), prompts(*many, "cup")) == ['prompts: with ["cup"] now']
    assert differences(prompts(*many), prompts(*many[1:])) == ['prompts: with ["word 0"] then']
    assert differences(prompts("a", "b"), prompts("b", "a")) == ["prompts: in another order"]
    assert differences(prompts("a", threshold=0.0), prompts("a")) == [
        'prompts: [{"text": "a", "threshold": 0.0}] then, ["a"] now'
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[]", "[" * 100_000])
def test_what_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match="give another --out-dir"):
        load_plan(tmp_path / "plan.json")
