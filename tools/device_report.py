"""Write summary.json and summary.txt of the parts that tools/device-check.sh has run so far.

python tools/device_report.py FOLDER
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMED_OUT = {124, 137}


def state(code: int) -> str:
    """What an exit code of `timeout` means."""
    return "passed" if code == 0 else "ran out of time" if code in TIMED_OUT else f"exit {code}"


def last_line(folder: Path, name: str) -> str:
    """The end of a part's messages or of its log."""
    for kind in (".log", ".err.log"):
        file = folder / f"{name}{kind}"
        lines = file.read_text(errors="replace").split("\n") if file.exists() else []
        filled = [line.strip() for line in lines if line.strip()]
        if filled:
            return filled[-1][:200]
    return ""


def result(folder: Path, name: str) -> object:
    """The JSON of a part, a list where it is a line for each measurement; or None."""
    try:
        text = (folder / f"{name}.json").read_text()
    except OSError:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return list(whole_lines(text)) or None


def whole_lines(text: str) -> Iterator[object]:
    """The lines that are JSON: the last one may have been cut off."""
    for line in text.splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def describe(found: object) -> list[str]:
    """A result in lines of text: its numbers, each with the keys above it."""
    if isinstance(found, dict):
        return [
            f"{key}: {line}" if isinstance(value, dict | list) else f"{key} {line}"
            for key, value in found.items()
            for line in describe(value)
        ]
    if isinstance(found, list):
        return [", ".join(describe(one)) for one in found]
    return [f"{found:.4g}" if isinstance(found, float) else str(found)]


def main(folder: Path) -> None:
    """Read parts.tsv and what the parts wrote."""
    parts, text = [], []
    for line in (folder / "parts.tsv").read_text().splitlines():
        name, code, seconds = line.split("\t")
        found, end = result(folder, name), last_line(folder, name)
        parts.append({"name": name, "state": state(int(code)), "seconds": int(seconds),
                      "last_line": end, "result": found})  # fmt: skip
        text.append(f"{name:14} {state(int(code)):16} {seconds:>4} s  {end}")
        text += [f"    {line}" for line in (describe(found) if found is not None else [])]
    (folder / "summary.json").write_text(json.dumps(parts, indent=1) + "\n")
    (folder / "summary.txt").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
