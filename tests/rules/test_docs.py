"""What the documents show is run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


def blocks():
    for document in DOCUMENTS:
        for number, match in enumerate(PYTHON_BLOCK.finditer(document.read_text())):
            yield pytest.param(match[1], id=f"{document.name}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(blocks()))
def test_python_blocks_run(code, monkeypatch, tmp_path):
    if "# needs " in code:  # a camera, a robot or official weights: compiled, not run
        compile(code, "<document>", "exec")
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    exec(compile(code, "<document>", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target
