"""What the documents show is run."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from clip import shorten_demo
from house import PACKAGES

from ape_model.training.recipe import read_recipe
from ape_stream.cli import main as cli
from ape_stream.config import load

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|`)ape-stream ([^`\n]+)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")


def blocks():
    for document in DOCUMENTS:
        for number, match in enumerate(PYTHON_BLOCK.finditer(document.read_text())):
            yield pytest.param(match[1], id=f"{document.name}-{number}")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The folder of examples, its clip cut to half a second: documents show whole runs."""
    folder = tmp_path_factory.mktemp("documents") / "examples"
    folder.mkdir()
    for path in (ROOT / "examples").iterdir():
        if path.name != "demo.mp4":
            (folder / path.name).symlink_to(path)
    shorten_demo(folder / "demo.mp4", 12)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("code", list(blocks()))
def test_python_blocks_run(code, examples, monkeypatch, tmp_path):
    if "# needs " in code:  # a camera, a robot or official weights: compiled, not run
        compile(code, "<document>", "exec")
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(examples)
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
            return  # mentioned by its name alone
        group = command
    group.make_context(name, list(words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_configurations_can_be_read(document, tmp_path):
    for number, match in enumerate(TOML_BLOCK.finditer(document.read_text())):
        path = tmp_path / f"{number}.toml"
        path.write_text(match[1])
        if "[[phase]]" in match[1]:
            assert read_recipe(path).phases
        else:
            assert load(path).sources


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recipe_fields_are_those_of_the_code():
    tables = tool("recipe_tables")
    page = tables.PAGE.read_text()
    assert page.count("<!-- recipe:") == len(tables.KINDS)
    assert tables.filled(page) == page, "run tools/recipe_tables.py"


def test_command_reference_is_that_of_the_code():
    reference = tool("command_reference")
    assert reference.page() == reference.PAGE.read_text(), "run tools/command_reference.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    """And from a page of the site to a page of the site: what is outside docs/ is not built."""
    for target in LINK.findall(document.read_text()):
        path = (document.parent / target).resolve()
        assert path.exists(), target
        assert DOCS not in document.parents or DOCS in path.parents, target


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    assert [
        page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).as_posix() not in menu
    ] == []


def test_the_first_screen_shows_an_image_of_modest_size():
    first = (ROOT / "README.md").read_text().splitlines()[:10]
    shown = [ROOT / target for line in first for target in LINK.findall(line)]
    assert any(path.suffix == ".webp" and path.stat().st_size <= 3_000_000 for path in shown)


def test_the_architecture_names_the_packages_that_there_are():
    """Packages of a row share their parent: `ape_model/weights/`, `io/`."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set()
    for row in re.findall(r"^\| (`\w+/.*?) \|", text, re.MULTILINE):
        names = re.findall(r"`([\w/]+)/`", row)
        named |= {names[0], *(f"{names[0].split('/')[0]}/{name}" for name in names[1:])}
    there = {
        f"{package}/{init.parent.name}"
        for package, folder in PACKAGES.items()
        for init in folder.glob("*/__init__.py")
    }
    assert {name for name in named if "/" in name} - {"ape_cuda_ops/csrc"} == there


def test_the_glossary_is_in_order():
    text = (DOCS / "glossary.md").read_text()
    words = [word.lower() for word in re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)]
    assert len(words) > 40
    assert words == sorted(set(words))


def test_the_installation_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \|", (DOCS / "install.md").read_text(), re.MULTILINE
    )
    assert {name for row in rows for name in re.findall(r"\w+", row)} == set(extras)
