"""What the documents show is run."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from ape_model.training.recipe import read_recipe
from ape_stream.cli import main as cli
from ape_stream.config import load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|`)ape-stream ([^`\n]+)", re.MULTILINE)
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


def commands():
    for document in DOCUMENTS:
        for match in COMMAND.finditer(document.read_text()):
            words = shlex.split(match[1], comments=True)
            yield pytest.param(words, id=f"{document.name}: {match[1][:40]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_have_the_verbs_and_options_that_are_shown(words):
    """Parsed, not run: a verb, an option or a choice that is not there is an error."""
    ends = [place for place, word in enumerate(words) if word in ("|", ">", "&&", "&", "2>&1")]
    words = [word.rstrip(",") for word in words[: ends[0] if ends else None]]
    group = typer.main.get_command(cli.app)
    while hasattr(group, "resolve_command"):
        context = group.make_context(group.name, words, resilient_parsing=True)
        if not words:
            return
        name, command, words = group.resolve_command(context, words)
        if len(words) == 0 or all(word.isupper() for word in words):
            return  # told by its name alone
        group = command
    group.make_context(name, list(words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_configurations_can_be_read(document, tmp_path):
    for number, match in enumerate(TOML_BLOCK.finditer(document.read_text())):
        path = tmp_path / f"{number}.toml"
        path.write_text(match[1])
        if "[[stage]]" in match[1]:
            assert read_recipe(path).stages
        else:
            assert load(path).sources


def test_recipe_fields_are_told_as_they_are():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "tools/recipe_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text()
    assert page.count("<!-- recipe:") == len(tables.KINDS)
    assert tables.filled(page) == page, "run tools/recipe_tables.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target
