"""Files, folders, patterns and lists as clips, with names that mirror the tree."""

import shutil

import pytest

from ape_stream.batch.clips import find_clips
from ape_stream.errors import UsageError


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "clips"
    for name in ("a.mp4", "day 1/b.mkv", "day 1/Prüfung-猫.MOV", "day 1/b.avi", "day 10/b.mp4",
                 "shots/2.png", "shots/10.jpg", "notes.txt", ".hidden.mp4"):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def names(*sources, **more):
    return [clip.name for clip in find_clips([str(source) for source in sources], **more).clips]


def test_a_folder_is_taken_with_all_folders_below(tree):
    assert names(tree) == [
        "a", "day 1/Prüfung-猫", "day 1/b-avi", "day 1/b-mkv", "day 10/b", "shots",
    ]  # fmt: skip


def test_the_folder_of_outputs_is_left_out(tree):
    assert names(tree, without=tree / "day 1") == ["a", "day 10/b", "shots"]


def test_names_count_from_the_folder_that_all_sources_share(tree):
    assert names(tree / "day 1", tree / "a.mp4")[0] == "a"
    assert names(tree / "day 1/b.mkv", tree / "day 10") == ["day 1/b", "day 10/b"]
    assert names(tree / "day 10" / "b.mp4") == ["b"]


def test_patterns_and_lists_stand_for_their_files(tree):
    assert names(f"{tree}/*/b.*") == ["day 1/b-avi", "day 1/b-mkv", "day 10/b"]
    assert names(f"{tree}/**/b.mp4") == ["day 10/b"]
    assert names(f"{tree}/shots/*.png") == ["shots"]
    listing = tree / "list.txt"
    listing.write_text("# mine\na.mp4\nday 10\n\n")
    assert names(listing) == ["a", "day 10/b"]
    listing.write_text("shots/10.jpg\nshots/2.png\n")
    assert names(listing) == ["list"]  # images alone are one clip, in the list's order


def test_a_file_with_brackets_in_its_name_keeps_it(tree):
    for name in ("talk [x1].mp4", "talk [x2].mp4", "why?.mp4"):
        (tree / "day 10" / name).touch()
    expected = ["day 10/b", "day 10/talk [x1]", "day 10/talk [x2]", "day 10/why?"]
    assert names(f"{tree}/day 10", tree / "a.mp4")[1:] == expected


def test_names_are_one_line(tree):
    for name in ("a\nb.mp4", "a\tb.mp4"):
        (tree / "day 10" / name).touch()
    assert names(tree / "day 10") == ["a_b-mp4", "a_b-mp4-2", "b"]


def test_a_file_by_two_ways_is_one_clip(tree):
    assert names(tree, tree / "a.mp4", tree / "day 1" / ".." / "a.mp4") == names(tree)


def test_names_of_the_jobs_own_files_are_kept_free(tree):
    (tree / "coco.mp4").touch()
    assert "coco-mp4" in names(tree, reserved={"coco"})


@pytest.mark.parametrize("source", ["gone.mp4", "gone/*.mp4", ""])
def test_what_is_not_there_is_refused(tree, source, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(UsageError):
        find_clips([source])


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no video and no image"):
        find_clips([str(tmp_path)])


def test_a_copy_elsewhere_is_the_same_shelf(tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "elsewhere" / "x")
    assert find_clips([str(copy)]).clips == find_clips([str(tree)]).clips


def test_the_digest_sees_the_content(tree):
    before = find_clips([str(tree)]).clips
    (tree / "a.mp4").write_bytes(b"A.mp4")
    after = find_clips([str(tree)]).clips
    assert [a.name for a, b in zip(before, after, strict=True) if a != b] == ["a"]
