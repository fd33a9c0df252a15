"""`annotate` over files: every clip that can be done is done, however workers and runs end."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import without_processes
from pycocotools.coco import COCO

from ape_stream.annotation import shelf
from ape_stream.batch import state
from ape_stream.cli.main import main

sys.path.insert(0, str(Path(__file__).parent))
from shelves import (
    annotate,
    final_files,
    lines_of,
    start,
    summary_of,
    write,
    write_shelf,
)

pytestmark = pytest.mark.usefixtures("folder")


def test_a_shelf_of_forty_with_five_broken(folder, capsys):
    write_shelf(folder / "clips")
    assert annotate("clips", "--no-overlay") == 3
    summary = summary_of()
    status = [clip["status"] for clip in summary["clips"]]
    assert (status.count("done"), status.count("failed")) == (35, 5)
    assert summary["words"] == {"cup": {"regions": 140, "tracks": 35, "clips": 35}}
    assert Path("out/site 1/Prüfung 猫/clip 1/results.jsonl").exists()
    failed = lines_of("out/failed.jsonl")
    assert [line["source"] for line in failed] == [
        "empty.mkv", "headless.mp4", "noise.mp4", "text.mov", "zeros.avi"
    ]  # fmt: skip
    assert str(folder) not in Path("out/failed.jsonl").read_text()
    coco = COCO("out/coco/annotations/instances_default.json")
    assert (len(coco.imgs), len(coco.anns)) == (140, 140)
    err = capsys.readouterr().err
    assert "failed: noise.mp4: noise.mp4 is not a video" in err


@pytest.mark.usefixtures("in_process")
def test_the_chosen_frames_keep_their_exact_times(folder):
    times = [0, 33, 70, 100, 140, 167, 200, 240]
    write(folder / "v.mkv", frames=8, times=times)
    assert annotate("v.mkv", "--start", "0:00.05", "--stride", "2", "--save-frames", "png") == 0
    video, *frames = lines_of("out/v/results.jsonl")
    assert video["video"]["name"] == "v"
    assert [frame["frame"] for frame in frames] == [2, 4, 6]
    assert [frame["pts"] for frame in frames] == [70, 140, 200]
    base = video["video"]["time_base"]
    assert [frame["pts"] * base[0] / base[1] for frame in frames] == [0.07, 0.14, 0.2]
    images = json.loads(Path("out/coco/annotations/instances_default.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"v/00000{k}.png" for k in (2, 4, 6)]
    assert all(Path("out/frames", image["file_name"]).exists() for image in images)


def test_a_clip_that_kills_its_worker_is_tried_three_times_and_put_aside(folder, capsys):
    write(folder / "good.mp4", frames=5)
    assert annotate("fake://3/exits", "good.mp4") == 3
    (failed,) = lines_of("out/failed.jsonl")
    assert failed["attempts"] == 3
    assert failed["reason"] == "its worker ended with exit code 7"
    assert summary_of()["words"]["cup"]["regions"] == 5
    before = final_files("out")
    capsys.readouterr()
    assert annotate("fake://3/exits", "good.mp4") == 3  # not tried again unless asked for
    assert "attempt" not in capsys.readouterr().err
    assert final_files("out") == before


def test_a_clip_that_hangs_is_put_aside(monkeypatch):
    monkeypatch.setattr(state, "ATTEMPTS", 1)
    assert annotate("fake://3/hangs", "--stall", "0.5") == 1
    (failed,) = lines_of("out/failed.jsonl")
    assert failed["reason"] == "its worker gave no sign of life for 0.5 s"


def test_files_are_the_same_however_it_was_made(folder, monkeypatch):
    monkeypatch.setattr(shelf, "SHARD_FRAMES", 8)
    write(folder / "in" / "a.mp4", frames=30)
    write(folder / "in" / "b.mp4", frames=5)
    with without_processes():
        assert annotate("in") == 0
    whole = final_files("out")
    # Killed in the middle: one shard cut short, one gone, one clip not written; then plan and
    # sources copied elsewhere, and more workers than before.
    shutil.copytree("out", "elsewhere/out")
    shutil.copytree("in", "elsewhere/in")
    shards = Path("elsewhere/out/.shards/clips/a")
    (shards / "000001.shard").write_bytes((shards / "000001.shard").read_bytes()[:-9])
    (shards / "000002.shard").unlink()
    (shards / "done.json").unlink()
    (shards / ".000002.shard.99.tmp").write_bytes(b"half")
    Path("elsewhere/out/b/results.jsonl").unlink()
    Path("elsewhere/out/summary.json").unlink()
    assert annotate("elsewhere/in", "--jobs", "2", out="elsewhere/out") == 0
    assert final_files("elsewhere/out") == whole
    assert not list(shards.glob(".*"))


def test_kills_of_workers_and_of_the_run_cost_nothing_that_was_written(folder):
    write(folder / "in" / "a.mp4", frames=400)
    with without_processes():
        assert annotate("in", out="whole") == 0
    process = start(folder, "in")
    shards = folder / "out/.shards/clips/a"
    wait_for(shards / "000000.shard")
    children = ["pgrep", "-P", str(process.pid)]
    pids = subprocess.run(children, capture_output=True, text=True, check=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    wait_for(shards / "000001.shard")
    process.kill()
    process.communicate(timeout=60)
    assert not Path("out/summary.json").exists()
    assert annotate("in") == 0
    assert final_files("out") == final_files("whole")


def wait_for(path):
    deadline = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.usefixtures("in_process")
def test_an_index_does_not_go_on_in_the_folder_of_a_job(folder, capsys):
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4") == 0
    assert main(["index", "a.mp4", "--out-dir", "out"]) == 2
    assert "is the folder of another command" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_another_plan_is_refused_with_what_differs(folder, capsys):
    write(folder / "in" / "a.mp4", frames=3)
    assert annotate("in") == 0
    before = final_files("out")
    assert annotate("in", "--stride", "2", "--prompt", "mug") == 2
    err = capsys.readouterr().err
    assert "frames.stride: 1 then, 2 now" in err
    assert "mug" in err
    write(folder / "in" / "b.mp4", frames=3)
    assert annotate("in") == 2
    assert "new: b): --extend takes such changes in" in capsys.readouterr().err
    assert final_files("out") == before
    assert annotate("in", "--extend") == 0
    assert len(summary_of()["clips"]) == 2


@pytest.mark.usefixtures("in_process")
def test_a_command_with_a_mistake_does_not_stand_in_the_way_of_the_right_one(folder, capsys):
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4", "--prompt", "unreadable") == 2
    assert "error: 'unreadable' cannot be read by this model" in capsys.readouterr().err
    (folder / "b.mp4").write_bytes(b"broken")
    assert annotate("b.mp4", "--stride", "2") == 1
    assert annotate("a.mp4") == 0
    assert summary_of()["frames"] == 3


@pytest.mark.usefixtures("in_process")
def test_a_broken_clip_that_was_repaired_is_done(folder):
    write(folder / "in" / "a.mp4", frames=3)
    (folder / "in" / "b.mp4").write_bytes(b"broken")
    assert annotate("in") == 3
    write(folder / "in" / "b.mp4", frames=3)
    assert annotate("in") == 0
    assert not Path("out/failed.jsonl").exists()


def test_results_of_no_job_are_not_replaced(folder, capsys):
    write(folder / "a.mp4", frames=3)
    Path("out/a").mkdir(parents=True)
    Path("out/a/overlay.mp4").write_bytes(b"mine")
    assert annotate("a.mp4") == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("out/a/overlay.mp4").read_bytes() == b"mine"


def test_a_file_is_no_output_folder(folder, capsys):
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4", out="a.mp4") == 2
    assert (
        "error: cannot write into a.mp4: Not a directory: give another" in capsys.readouterr().err
    )


def test_two_runs_do_not_share_a_folder(folder, capsys):
    write(folder / "a.mp4", frames=3)
    process = start(folder, "fake://9/hangs")
    wait_for(folder / "out/plan.json")
    assert annotate("a.mp4") == 2
    assert "error: another run is at work in out: wait for it" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from here" in err


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(folder, capsys):
    write(folder / "in" / "a.mp4", frames=200)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        assert annotate("in") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    err = capsys.readouterr().err
    assert "error: cannot write" in err
    assert "File too large" in err
    assert annotate("in") == 0
    assert summary_of()["frames"] == 200


@pytest.mark.usefixtures("in_process")
def test_json_lines_for_machines(folder, capsys):
    write(folder / "a.mp4", frames=3)
    assert annotate("a.mp4", "--json", "--format", "yolo") == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [event["event"] for event in events if event["event"] == "clip"] == ["clip"]
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert notes == ["writing yolo", "yolo cannot hold 3 track ids"]
    assert events[-1]["event"] == "finished"
    assert events[-1]["summary"]["words"]["cup"]["regions"] == 3
