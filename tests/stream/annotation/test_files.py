"""The files of a job: what is in them, and what a review takes out."""

import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shelves import annotate, final_files, lines_of, summary_of, write

from ape_stream.cli.main import main

pytestmark = pytest.mark.usefixtures("folder", "in_process")


def tracks_of(path):
    frames = [line for line in lines_of(path) if "instances" in line]
    return {item["track_id"] for frame in frames for item in frame["instances"]} - {None}


def test_the_report_holds_every_track_and_no_address(folder, capsys):
    write(folder / "in" / "a <b>.mp4", frames=6)
    assert annotate("in", "--prompt", "cup, </script><b>dog") == 0
    page = Path("out/report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert 'data-clip="a &lt;b&gt;"' in page
    data = page.partition('data-clip="a &lt;b&gt;">\n')[2].partition("</script>")[0]
    strips = [json.loads(line) for line in data.splitlines()]
    assert [strip["prompt"] for strip in strips] == ["cup", "</script><b>dog"]
    assert {strip["track"] for strip in strips} == tracks_of("out/a <b>/results.jsonl")
    assert all(0 <= strip["doubt"] <= 1 and strip["images"] for strip in strips)

    # What was rejected there is left out of all files; what was found stays for the next review.
    review = {"format": 1, "rejected": [{"clip": "a <b>", "track": 2}], "accepted": []}
    Path("review.json").write_text(json.dumps(review))
    before = final_files("out")
    words = ("--prompt", "cup, </script><b>dog")
    assert annotate("in", *words, "--apply", "review.json") == 0
    assert tracks_of("out/a <b>/results.jsonl") == {1}
    assert summary_of()["words"]["</script><b>dog"]["tracks"] == 0
    assert annotate("in", *words) == 2  # not by accident
    assert "outputs.rejected" in capsys.readouterr().err
    assert annotate("in", *words, "--overwrite") == 0
    assert final_files("out") == before


def test_images_of_a_folder_are_one_clip_with_their_own_names(folder):
    for k in (2, 10):
        path = folder / "in" / "shots" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 50, 3), k, np.uint8))
    (folder / "in" / "shots" / "3.jpg").write_bytes(b"broken")
    assert annotate("in/shots", "--save-frames", "jpg", "--format", "yolo") == 3
    frames = lines_of("out/shots/results.jsonl")[1:]
    assert [frame["file"] for frame in frames] == ["2.png", "10.png"]
    assert "3.jpg" in summary_of()["clips"][0]["problem"]
    # The images are copied as they are, to where readers look for them.
    (image,) = Path("out/yolo/images/train").glob("*10*")
    assert image.read_bytes() == (folder / "in/shots/10.png").read_bytes()


def test_videos_hide_what_is_to_be_hidden():
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, ::2] = 255  # stripes of one pixel: gone where they are blurred
    cv2.imwrite("shot.png", image)
    words = ["annotate", "shot.png", "--config", "fake.toml", "--prompt", "cup, dog"]
    assert main([*words, "--blur", "cup", "--pixelate", "dog", "--output", "o.mp4"]) == 0
    with av.open("o.mp4") as video:
        shown = next(video.decode(video=0)).to_ndarray(format="gray")
    # The cup is at the first four columns of the first four rows, the dog five columns further.
    assert np.ptp(shown[:4, :9]) < 60
    assert np.ptp(shown[30:, :9].astype(int)) > 120
    assert main([*words, "--out-dir", "job", "--blur", "cup"]) == 0
    assert sorted(path.name for path in Path("job/shot").iterdir()) == [
        "redacted.mp4",
        "results.jsonl",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out-dir", "o", "--output", "x.mp4"], "give --output or --out-dir"),
        (["--output", "x.mp4", "--stride", "2"], "--stride: only for files"),
        (["--format", "yolov0"], "there is no format 'yolov0'"),
        (["--start", "soon"], "is no time"),
        (["--jobs", "0"], "--jobs is at least 1"),
        (["--save-frames", "gif"], "jpg or png"),
        (["--engine", "spark"], "processes or ray"),
        (["--resume"], "nothing to go on with"),
        (["--apply", "gone.json"], "cannot read gone.json"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, words, says, capsys):
    write(folder / "a.mp4", frames=2)
    assert main(["annotate", "a.mp4", "--prompt", "cup", *words]) == 2
    assert says in capsys.readouterr().err
    assert not Path("out").exists()
