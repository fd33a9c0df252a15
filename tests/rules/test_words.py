"""Words that CONTRIBUTING rules out do not come back."""

import re
from pathlib import Path

from house import PACKAGES, ROOT

FOLDERS = (*PACKAGES.values(), *(ROOT / name for name in ("tests", "docs", "tools", "examples")))
SUFFIXES = {".py", ".md", ".toml", ".cpp", ".cu", ".cuh", ".h", ".js", ".css", ".html"}
FILES = sorted(
    path
    for path in {
        *(found for folder in FOLDERS for found in folder.rglob("*") if found.is_file()),
        *ROOT.glob("*.md"),
    }
    if path.suffix in SUFFIXES and path != Path(__file__) and path.name != "CONTRIBUTING.md"
)
RULED_OUT = re.compile(
    r"picture|\banew\b|(?<![a-z])beside(?![a-z])|whatever|\bmend(s|ed|ing)?\b|plain twin"
    r"|\bas_written\b|\bunderway\b|\bso-manieth\b",
    re.IGNORECASE,
)
ALLOWED = (
    r"PictureType",  # of PyAV
    r"\"--pictures\"|`--pictures`|\"pictures\"|`pictures`|pictures = 'there'",  # former option, key
    r"the \{x\} beside the \{y\}|`beside`",  # of sentences, and the former name of a relation
    r"`as_written`",  # former name of a form
)


def hits(path: Path) -> list[str]:
    text = re.sub("|".join(ALLOWED), "", path.read_text(encoding="utf-8"))
    name = path.relative_to(ROOT).as_posix()
    lines = enumerate(text.splitlines(), 1)
    return [f"{name}:{number}: {line}" for number, line in lines if RULED_OUT.search(line)]


def test_no_file_has_a_word_that_is_ruled_out():
    assert len(FILES) > 400
    assert [hit for path in FILES for hit in hits(path)] == []
