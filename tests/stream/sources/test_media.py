"""Folders, patterns and lists stand for the sources in them, wherever a source may be named."""

import pytest
from clips import write_clip
from PIL import Image

import ape_stream
from ape_stream.errors import UsageError
from ape_stream.sources.media import expand, find_media
from ape_stream.testing import OraclePerceiver


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Videos and images, some a folder below."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day/deep").mkdir(parents=True)
    for name in ("clip.mp4", "day/2.avi", "day/10.mkv", "day/a.PNG", "day/notes.doc",
                 "day/deep/b.jpg", "day/.hidden.mp4"):  # fmt: skip
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("spec", "sources"),
    [
        ("clip.mp4", ["clip.mp4"]),
        ("day", ["day", "day/2.avi", "day/10.mkv", "day/deep"]),
        ("day/*.*", ["day/*.*", "day/2.avi", "day/10.mkv"]),
        ("*/*.avi", ["day/2.avi"]),
        ("day/*.png", ["day/*.png"]),
        ("nothing/*.mp4", ["nothing/*.mp4"]),
        ("frame_%04d.png", ["frame_%04d.png"]),
        ("0", ["0"]),
        ("http://host/a.txt", ["http://host/a.txt"]),
    ],
)
def test_what_a_string_stands_for(spec, sources):
    assert expand(spec) == sources


def test_a_list_of_videos_stands_for_its_lines_and_one_of_images_for_itself(folder):
    (folder / "list.txt").write_text("# mine\nday/2.avi\nday/deep\n")
    assert expand("list.txt") == ["day/2.avi", "day/deep"]
    (folder / "list.txt").write_text("# mine\nday/a.PNG\n")
    assert expand("list.txt") == ["list.txt"]


def test_a_list_that_names_itself_is_refused(folder):
    (folder / "list.txt").write_text("list.txt\n")
    with pytest.raises(UsageError, match="names a list"):
        expand("list.txt")


def test_a_run_over_a_folder_reads_its_videos_and_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all").mkdir()
    write_clip("all/clip.mp4", frames=3)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (64, 48)).save(f"all/{name}")
    (tmp_path / "list.txt").write_text("# images\nall/2.png\n")
    run = ape_stream.open(["all", "all/*", "list.txt"], "cup", model=OraclePerceiver())
    counts: dict[str, int] = {}
    for result in run:
        counts[result.frame.stream] = counts.get(result.frame.stream, 0) + 1
    assert counts == {"all": 2, "clip": 3, "stream": 2, "clip-2": 3, "list": 1}


def test_a_list_of_streams_is_opened(folder):
    (folder / "all.streams").write_text("# gates\nrtsp://gate/1\n\nclip.mp4\n0\n")
    assert expand("all.streams") == ["rtsp://gate/1", "clip.mp4", "0"]
    assert expand("clip.mp4") == ["clip.mp4"]


@pytest.mark.parametrize(
    ("content", "says"), [(b"\n# x\n", "names nothing"), (b"\xff\xfe", "cannot")]
)
def test_a_list_that_says_nothing_is_refused(folder, content, says):
    (folder / "bad.streams").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        expand("bad.streams")
    with pytest.raises(UsageError, match="cannot read the list"):
        expand("gone.streams")


def test_a_list_may_begin_with_a_byte_order_mark(folder):
    (folder / "bom.streams").write_bytes(b"\xef\xbb\xbfclip.mp4\n")
    assert expand("bom.streams") == ["clip.mp4"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("file:///a/b%20c.mp4", "/a/b c.mp4"),
        ("FILE://localhost/a/what?.mp4", "/a/what?.mp4"),
        ("file:///shots/*.png", "/shots/*.png"),
    ],
)
def test_a_file_url_is_its_path(folder, spec, path):
    assert expand(spec) == [path]
    (folder / "urls.streams").write_text(f"{spec}\n")
    assert expand("urls.streams") == [path]


def test_a_file_of_another_machine_is_refused():
    with pytest.raises(UsageError, match="another machine"):
        expand("file://host/a.mp4")


@pytest.mark.parametrize("line", ["a\0*.png", "x" * 300, "x" * 300 + "[0]", "a\0/b"])
def test_a_line_that_no_file_can_be_called_is_refused(tmp_path, line):
    listing = tmp_path / "a.streams"
    listing.write_text(f"{line}\n")
    for read in (expand, lambda spec: list(find_media(spec))):
        with pytest.raises(UsageError, match="as a file name"):
            read(str(listing))
