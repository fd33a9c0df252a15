"""Thousands of damaged files for every format: `python tests/fuzz/run.py --count 10000 mp4 toml`.

Each file is read in a child process, which may crash, hang or fail; what it was at is named with
its seed, and the file is kept. Without formats, all are tried.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from mutants import mutant
from targets import TARGETS, available, refused

HANGS_S = 20.0
"""No damaged file of ours takes longer."""


def main() -> int:
    """Try every format; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="Seed of the first.")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    given = parser.parse_args()
    problems = 0
    for name in given.formats or available():
        started = time.monotonic()
        found = try_format(name, range(given.first, given.first + given.count), given.keep)
        problems += len(found)
        took_s = time.monotonic() - started
        say(f"{name}: {given.count} files, {len(found)} problems, {took_s:.0f} s")
        for seed, problem in found[:20]:
            say(f"  seed {seed}: {problem}")
    return int(problems > 0)


def say(line: str) -> None:
    """Report at once, into a log too."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def try_format(name: str, seeds: range, keep: Path) -> list[tuple[int, str]]:
    """What went wrong, by seed."""
    found: list[tuple[int, str]] = []
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / f"sound{target.suffix}"
        target.make(sound)
        data = sound.read_bytes()
        at = seeds.start
        while at < seeds.stop:
            at, problem = _child(name, data, range(at, seeds.stop), Path(folder))
            if problem:
                found.append((at - 1, problem))
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{at - 1}{target.suffix}").write_bytes(mutant(data, at - 1))
    return found


def _child(name: str, data: bytes, seeds: range, folder: Path) -> tuple[int, str]:
    """Read files in a child until one goes wrong; the next seed, and what went wrong."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(name, data, seeds, folder, writing)
    os.close(writing)
    done, text = seeds.start, b""
    while select.select([reading], [], [], HANGS_S)[0]:
        got = os.read(reading, 65536)
        if not got:
            break
        text += got
        *lines, text = text.split(b"\n")
        done += lines.count(b".")
        if lines and lines[-1] != b".":  # the traceback of one that failed
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return done + 1, lines[-1].decode()
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        return done + 1, f"no end within {HANGS_S:g} s"
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return done + 1, f"killed by signal {os.WTERMSIG(status)}"
    if status or done < seeds.stop:
        raise RuntimeError(f"{name}: the child ended after {done - seeds.start} files")
    return seeds.stop, ""


def _work(name: str, data: bytes, seeds: range, folder: Path, writing: int) -> None:
    target = TARGETS[name]
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # what native libraries print
    for seed in seeds:
        inside = folder / "now"
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        path = inside / f"m{target.suffix}"
        path.write_bytes(mutant(data, seed))
        try:
            refused(target, path)
        except BaseException:  # noqa: BLE001 (all of them are what is looked for)
            lines = " | ".join(traceback.format_exc().splitlines()[-5:])
            os.write(writing, (lines + "\n").encode())
            os._exit(1)
        os.write(writing, b".\n")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
