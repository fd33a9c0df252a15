"""Kill a job over files again and again, at random moments, and compare its files at the end.

    python tools/kill_batch.py --kills 50

The job runs with a stand-in model over small clips. Each round starts it, waits for a random time
and kills, with SIGKILL, the run or one of its workers; a killed run is started again. When enough
kills are done the job is left to end, and every final file must be equal, byte for byte, to those
of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests/stream")]

import fake_plugins  # noqa: E402
from clips import write_clip  # noqa: E402


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    """Start the job."""
    words = ["annotate", "in", "--config", "fake.toml", "--out-dir", out, "--no-overlay"]
    path = os.pathsep.join([str(folder), *(str(ROOT / p) for p in (".", "model", "nodes"))])
    return subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-m", "ape_stream", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def children_of(pid: int) -> list[int]:
    """The workers of a run."""
    words = ["pgrep", "-P", str(pid)]
    listed = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    return [int(child) for child in listed.stdout.split()]


def final_files(out: Path) -> dict[str, str]:
    """Digests of the final files."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".shards" not in path.parts
    }


def disturb(folder: Path, kills: int, chance: random.Random, longest_s: float) -> dict[str, int]:
    """Kill a job this often; returns how often what was killed."""
    done = {"run": 0, "worker": 0, "ended by itself": 0}
    process = start(folder, "out")
    while done["run"] + done["worker"] < kills:
        time.sleep(chance.uniform(0, longest_s))
        if process.poll() is not None:  # it was faster: from the start again
            done["ended by itself"] += 1
            subprocess.run(["rm", "-rf", str(folder / "out")], check=True)  # noqa: S603, S607
            process = start(folder, "out")
            continue
        workers = children_of(process.pid)
        # A third kill of one clip's worker would put the clip aside: another result.
        if workers and done["worker"] < 2 and chance.random() < 0.5:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
            done["worker"] += 1
        else:
            process.kill()
            process.wait()
            done["run"] += 1
            process = start(folder, "out")
    process.wait()
    return done


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=700)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = fake_plugins.install(Path(name))
        (folder / "in").mkdir()
        for k in range(given.clips):
            write_clip(folder / "in" / f"{k}.mp4", frames=given.frames)
        start(folder, "whole").wait()
        done = disturb(folder, given.kills, random.Random(given.seed), given.longest)  # noqa: S311
        print(", ".join(f"{what}: {count}" for what, count in done.items()))
        whole, disturbed = final_files(folder / "whole"), final_files(folder / "out")
        if whole != disturbed:
            differ = {
                n for n in whole.keys() | disturbed.keys() if whole.get(n) != disturbed.get(n)
            }
            sys.exit(f"differ: {', '.join(sorted(differ))}")
        print(f"{len(whole)} final files are equal")


if __name__ == "__main__":
    main()
