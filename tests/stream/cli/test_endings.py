"""However a process ends, its outputs are whole, or parts that say so."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from ape_stream.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
OUTPUTS = ("--output", "o.json", "--output", "o.mp4", "--output", "o.jsonl", "--output", "maps/")


def environment(folder):
    path = os.pathsep.join([str(folder), *(str(ROOT / p) for p in (".", "model", "nodes"))])
    return {**os.environ, "PYTHONPATH": path}


def start(folder, *words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "ape_stream", *words],
        cwd=folder,
        env=environment(folder),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more},
    )


def wait_for_frames(path, count):
    deadline = time.monotonic() + 90
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


SIGNALLED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "ape_stream.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from ape_stream.__main__ import main
main()
"""


def test_ctrl_c_while_modules_are_imported_prints_nothing(folder):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        env=environment(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("number", "again", "code"),
    [
        (signal.SIGINT, None, 130),
        (signal.SIGHUP, None, 129),
        (signal.SIGINT, 0.005, 130),
        (signal.SIGTERM, 0.0, 143),
    ],
)
def test_a_signal_cuts_a_file_short_and_keeps_all_that_was_written(folder, number, again, code):
    words = ["annotate", "fake://film", "--config", "fake.toml", *OUTPUTS]
    process = start(folder, *words)
    wait_for_frames(folder / "o.jsonl.part", 5)
    process.send_signal(number)
    if again is not None:
        time.sleep(again)
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (code, False), err
    assert "not whole: o.json.part, o.mp4.part, o.jsonl.part, maps.part" in err
    assert "interrupted" in err
    counts = set()
    for name in ("o.json", "o.mp4", "o.jsonl", "maps"):
        assert not (folder / name).exists()
        assert main(["recover", f"{name}.part"]) == 0
    counts.add(len(json.loads((folder / "o.json").read_text())["images"]))
    counts.add(len((folder / "o.jsonl").read_text().splitlines()))
    counts.add(len(list((folder / "maps").rglob("*.png"))))
    with av.open("o.mp4") as video:
        counts.add(len(list(video.decode(video=0))))
    assert len(counts) == 1


def test_a_signal_ends_a_live_stream_with_whole_outputs(folder):
    process = start(folder, "annotate", "fake://endless", "--config", "fake.toml", *OUTPUTS)
    wait_for_frames(folder / "o.jsonl.part", 5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "not whole" not in err
    assert out.split() == ["o.json", "o.mp4", "o.jsonl", "maps/"]
    assert json.loads((folder / "o.json").read_text())["info"]["partial"] is False
    assert not list(folder.glob("*.part"))


def test_a_signal_while_a_run_starts_leaves_nothing(folder):
    (folder / "ape_fakes.py").write_text(
        (folder / "ape_fakes.py")
        .read_text()
        .replace(
            "    def prepare(self, prompts):\n",
            "    def prepare(self, prompts):\n"
            "        open('started', 'w').close(); threading.Event().wait(30)\n",
        )
    )
    process = start(folder, "annotate", "fake://3", "--config", "fake.toml", "--output", "o.json")
    deadline = time.monotonic() + 90
    while not (folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=25)
    assert process.returncode == 143
    assert "Traceback" not in err
    assert not list(folder.glob("o.json*"))


def test_a_failed_source_leaves_parts(folder, capsys):
    words = ["annotate", "fake://5/broken", "--config", "fake.toml", "--output", "o.json"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "not whole: o.json.part" in err
    assert "error: source 5-broken failed: cable pulled" in err
    assert [path.name for path in folder.glob("o.json*")] == ["o.json.part"]


def test_a_truncated_source_gives_whole_outputs_that_say_so(folder):
    words = ["annotate", "fake://5/cut", "--config", "fake.toml", "--output", "o.json"]
    assert main(words) == 3
    about = json.loads((folder / "o.json").read_text())["info"]
    assert about["partial"] is True
    assert "5 of 30 frames" in about["reason"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_closed_stderr_does_not_end_a_run(folder, terminal):
    words = ["annotate", "fake://30", "--config", "fake.toml", "--output", "o.jsonl"]
    if terminal:
        ours, theirs = pty.openpty()
    else:
        ours, theirs = os.pipe()
    process = start(folder, *words, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 or (terminal and process.returncode == 129)
    assert out == ("" if process.returncode else "o.jsonl\n")
    if not terminal:
        assert len((folder / "o.jsonl").read_text().splitlines()) == 30


@pytest.mark.parametrize(
    "words", [pytest.param(["list"], marks=pytest.mark.slow), ["--help"], ["--version"]]
)
def test_a_full_stdout_is_one_line(folder, words):
    with Path("/dev/full").open("w") as full:
        process = start(folder, *words, stdout=full)
        _, err = process.communicate(timeout=60)
    assert err == "error: cannot write to standard output: No space left on device\n"
    assert process.returncode == 1


def test_a_reader_that_goes_away_is_no_error(folder):
    process = start(folder, "--help")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert err == ""


def test_help_imports_nothing_heavy(folder):
    code = (
        "import sys\n"
        "from ape_stream.cli.main import main\n"
        "main(['--help']); main(['bench', '--help'])\n"
        "heavy = {'torch', 'zmq', 'cyclonedds', 'av', 'supervision', 'scipy'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr == "set()\n"


def test_every_part_is_recovered_that_can_be(folder, capsys):
    for name in ("a.jsonl", "b.jsonl"):
        (folder / f"{name}.part").write_text("{}\n")
    names = ["a.jsonl.part", "missing.json.part", "missing.jsonl.part", "b.jsonl.part"]
    assert main(["recover", *names]) != 0
    assert (folder / "a.jsonl").exists()
    assert (folder / "b.jsonl").exists()
    err = capsys.readouterr().err
    assert [err.count(name) for name in ("missing.json.part", "missing.jsonl.part")] == [1, 1]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_missing_from_the_start_change_no_exit_code(folder, closed):
    run = f"{sys.executable} -m ape_stream annotate"
    words = f"fake://3 --config fake.toml {' '.join(OUTPUTS)} {closed}"
    script = f"{run} {words}; echo $? >code; {run} gone.mp4 --prompt cat {closed}; echo $? >>code"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment(folder),
        capture_output=True,
        check=True,
        text=True,
    )
    assert Path("code").read_text().split() == ["0", "2"], done.stderr
    assert "Traceback" not in done.stderr
    assert "error" not in done.stdout
    assert Path("o.json").exists()
