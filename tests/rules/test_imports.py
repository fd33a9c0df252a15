"""No circle of imports, not even a lazy one; no room with too many files."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest
from house import PACKAGES, runtime_nodes

MAX_ROOM_FILES = 18


def modules(packages):
    """Every module's file by its dotted name."""
    found = {}
    for package, folder in packages.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imported(name, path, known):
    """The known modules that a module imports; of `from package import module`, the module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    targets = set()
    for node in runtime_nodes(path):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        if not isinstance(node, ast.ImportFrom):
            continue
        base = node.module or ""
        if node.level:
            above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            base = f"{above}.{base}".rstrip(".")
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            targets.add(inner if inner in known else base)
    return (targets & known.keys()) - {name}


def circle(packages):
    """The first circle of imports, as a list of modules, or None."""
    known = modules(packages)
    graph = {name: imported(name, path, known) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_no_module_imports_itself_over_others():
    found = circle(PACKAGES)
    assert found is None, " <- ".join(found)


@pytest.mark.parametrize(
    ("b", "is_circle"),
    [
        ("from pack import a", True),
        ("from . import a", True),
        ("from .a import x", True),
        ("def f():\n    import pack.a", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pack.a", False),
        ("import os", False),
    ],
)
def test_a_circle_would_be_found(tmp_path, b, is_circle):
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text("from pack.b import thing\n")
    (tmp_path / "b.py").write_text(b)
    assert (circle({"pack": tmp_path}) is not None) is is_circle


@pytest.mark.parametrize("package", PACKAGES)
def test_a_room_has_few_files(package):
    for folder in [PACKAGES[package], *PACKAGES[package].rglob("*/")]:
        files = list(folder.glob("*.py"))
        assert len(files) <= MAX_ROOM_FILES, folder
