"""The command line: outputs, exit codes, one-line errors, machine output."""

import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path

import pytest
from clips import write_clip
from servers import folder as serve_files
from servers import web

import ape_stream
from ape_stream.cli import doctor
from ape_stream.cli.main import main


def annotate(*more):
    return main(["annotate", *more, "--config", "fake.toml"])


def test_the_main_job(folder, capsys):
    assert annotate("fake://5", "--prompt", "red apple, dog face", "--output", "fake:out.txt") == 0
    out, err = capsys.readouterr()
    lines = (folder / "out.txt").read_text().splitlines()
    assert lines == [*(f"5 {k} 2" for k in range(5)), "closed"]
    assert out == "fake:out.txt\n"
    assert "5 frames in" in err


@pytest.mark.usefixtures("folder")
def test_json_says_all_for_machines(capsys):
    code = annotate("fake://5", "--prompt", "cup", "--output", "fake:o.txt", "--json")
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["outcome"] == "finished"
    assert report["outputs"] == ["fake:o.txt"]
    assert report["prompts"] == ["cup"]
    assert report["stats"]["streams"]["5"]["published"] == 5


def test_prompts_come_from_a_file_too(folder, capsys):
    (folder / "prompts.txt").write_text("the cup, left of the plate\n\nplate\n")
    more = ("--prompts-file", "prompts.txt", "--prompt", "spoon", "--json")
    assert annotate("fake://1", "--output", "fake:o.txt", *more) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["prompts"] == ["spoon", "the cup, left of the plate", "plate"]


def test_a_prompts_file_may_begin_with_a_byte_order_mark(folder, capsys):
    (folder / "words.txt").write_bytes(b"\xef\xbb\xbfred apple\n")
    words = ("fake://2", "--prompts-file", "words.txt", "--output", "fake:o.txt", "--json")
    assert annotate(*words) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == ["red apple"]


@pytest.mark.parametrize("options", [(), ("--no-live",), ("--wait", "5")])
def test_a_url_with_an_end_is_read_to_its_end(folder, options):
    clip = Path(write_clip(folder / "a.mp4", frames=12)).read_bytes()
    with web(serve_files({"a": clip})) as url:
        done = annotate(f"{url}/a", *options, "--prompt", "cup", "--output", "fake:out.txt")
    assert done == 0
    assert len((folder / "out.txt").read_text().splitlines()) == 12 + 1


@pytest.mark.usefixtures("folder")
def test_live_and_wait_are_for_sources_that_know_them(capsys):
    assert annotate("fake://5", "--live", "--prompt", "cup") == 2
    assert "live" in capsys.readouterr().err
    start = time.monotonic()
    assert annotate("tcp://127.0.0.1:9", "--wait", "0.8", "--prompt", "cup") == 1
    assert time.monotonic() - start > 0.4
    assert "Connection refused" in capsys.readouterr().err


def test_ten_thousand_prompts(folder, capsys):
    (folder / "prompts.txt").write_text("\n".join(f"thing {k}" for k in range(10_000)))
    more = ("--prompts-file", "prompts.txt", "--json", "--output", "fake:o.txt")
    assert annotate("fake://1", *more) == 0
    assert len(json.loads(capsys.readouterr().out)["prompts"]) == 10_000


def test_several_sources_at_once(folder):
    assert annotate("fake://3", "fake://4", "--output", "fake:out.txt") == 0
    lines = (folder / "out.txt").read_text().splitlines()
    assert sorted(lines) == sorted(
        [*(f"3 {k} 1" for k in range(3)), *(f"4 {k} 1" for k in range(4)), "closed"]
    )


def test_a_truncated_source_is_processed_closed_and_exits_3(folder, capsys):
    assert annotate("fake://5/cut", "--output", "fake:out.txt") == 3
    assert (folder / "out.txt").read_text().splitlines()[-2:] == ["5-cut 4 1", "closed"]
    assert "warning: 5-cut ends early: 5 of 30 frames were read" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["annotate", "gone.mp4", "--prompt", "a"], 2, "no such source: 'gone.mp4'"),
        (["annotate", "fake://1"], 2, "no prompt given: say what to find"),
        (["annotate", "fake://1", "--prompt", " , "], 2, "no prompt given"),
        (["annotate", "fake://1", "--prompt", "x" * 10_000], 2, "has 10000 characters"),
        (["annotate"], 2, "Missing argument"),
        (["annotate", "fake://1", "--nonsense"], 2, "No such option: --nonsense"),
        (["annotate", "fake://1", "--threshold", "2", "--prompt", "a"], 2, "not within 0..1"),
        (
            ["annotate", "fake://1", "--prompts-file", "gone.txt"],
            2,
            "cannot read the prompts in gone.txt: No such file or directory\n",
        ),
        (["annotate", "gone.streams", "--prompt", "a"], 2, "gone.streams: No such file or dir"),
        (["annotate", "-", "--prompt", "a"], 2, "standard input is not read as a source"),
        (["world", "video", "fake.toml/w"], 2, "cannot write fake.toml/w: Not a directory"),
        (["annotate", "nosuch://1", "--prompt", "a"], 2, "no source is called 'nosuch'"),
        (["annotate", "fake://1", "--config", "fake.toml", "--model", "gone"], 2, "'gone'"),
        (["annotate", "fake://1", "--config", "fake.toml", "--prompt", "unreadable"], 2, "read by"),
        (["annotate", "fake://dead", "--config", "fake.toml"], 1, "camera fake does not answer"),
        (
            ["annotate", "fake://5/broken", "--config", "fake.toml", "--output", "fake:o"],
            1,
            "cable",
        ),
        (["run", "gone.toml"], 2, "cannot read gone.toml"),
        (["dance"], 2, "No such command 'dance'"),
        (["heavy"], 2, "command 'heavy' (ape_heavy:app) is broken: division by zero"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(capsys, words, code, says):
    assert main(words) == code
    out, err = capsys.readouterr()
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.usefixtures("folder")
def test_debug_shows_the_traceback(capsys):
    assert main(["annotate", "gone.mp4", "--prompt", "a", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_disk_that_fills_up_keeps_what_was_written(folder, capsys):
    (folder / "run.toml").write_text(
        'prompts = ["cup"]\nmodel = { plugin = "fake" }\nsources = ["fake://20"]\n'
        'outputs = ["fake:a.txt", { output = "fake:b.txt", full_at = 7 }]\n'
    )
    assert main(["run", "run.toml"]) == 1
    err = capsys.readouterr().err
    assert "sink Sink, on 20 #7, failed" in err or "sink collect, on 20 #7, failed" in err
    assert "No space left on device" in err
    assert len((folder / "a.txt").read_text().splitlines()) == 8 + 1
    assert len((folder / "b.txt").read_text().splitlines()) == 7 + 1


def test_an_output_may_take_one_stream_only(folder):
    (folder / "run.toml").write_text(
        'prompts = ["cup"]\nmodel = { plugin = "fake" }\ntracker = "none"\n'
        'sources = [{ source = "fake://3", name = "left" }, { source = "fake://2", name = "b" }]\n'
        'outputs = [{ output = "fake:left.txt", stream = "left" }]\n'
    )
    assert main(["run", "run.toml"]) == 0
    lines = (folder / "left.txt").read_text().splitlines()
    assert lines == ["left 0 1", "left 1 1", "left 2 1", "closed"]


@pytest.mark.usefixtures("folder")
def test_commands_of_plugins_are_called_and_listed_with_their_help(capsys):
    assert main(["greet", "--name", "apple"]) == 0
    assert capsys.readouterr().out == "hello apple\n"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "Say hello." in out
    assert "Cannot be used: command 'heavy'" in out
    assert "annotate" in out


@pytest.mark.usefixtures("folder")
def test_doctor_asks_plugins_and_survives_an_ill_one(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {f["what"]: f["finding"] for f in json.loads(capsys.readouterr().out)}
    assert findings["fake part"] == "works"
    assert findings["ill"] == "cannot say: RuntimeError: no driver"
    assert findings["Python"].startswith(".".join(map(str, sys.version_info[:2])))
    assert findings["numpy"].endswith("(needed)")
    assert main(["doctor"]) == 0
    assert "fake part" in capsys.readouterr().out


def test_doctor_names_the_extra_of_all_that_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    findings = " ".join(finding for _, finding in doctor.examine())
    extras = set(importlib.metadata.metadata("ape-stream").get_all("Provides-Extra"))
    # CUDA 12 is named where its GPU is looked for.
    for extra in extras - {"dev", "docs", "test", "cuda12"}:
        assert f"pip install 'ape-stream[{extra}]'" in findings


@pytest.mark.usefixtures("folder")
def test_list_shows_what_works_and_what_is_broken(capsys):
    assert main(["list", "--json"]) == 0
    plugins = {(p["group"], p["name"]): p for p in json.loads(capsys.readouterr().out)}
    assert plugins["sources", "fake"]["problem"] is None
    assert "division by zero" in plugins["commands", "heavy"]["problem"]
    assert main(["list"]) == 0
    assert "cannot be used: command 'heavy'" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ape-stream {ape_stream.__version__}\n"
    assert ape_stream.__version__ == importlib.metadata.version("ape-stream")


def test_a_list_of_prompts_may_be_a_pipe(folder, capsys):
    reading, writing = os.pipe()
    os.write(writing, b"cat\ndog\n")
    os.close(writing)
    code = annotate("fake://2", "--prompts-file", f"/dev/fd/{reading}", "--output", "fake:out.txt")
    os.close(reading)
    assert code == 0, capsys.readouterr().err
    assert (folder / "out.txt").read_text().splitlines() == ["2 0 2", "2 1 2", "closed"]
