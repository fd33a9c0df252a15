"""Docstrings have one form, whoever wrote them."""

import ast
import re

import pytest
from house import PACKAGES, ROOT, nodes_of

FILES = sorted(path for package in PACKAGES.values() for path in package.rglob("*.py"))
A_WORD = re.compile(r"[a-z]+[.,;:]?")
"""What is no identifier, number, shape or symbol, which keep their own form."""


def docstrings(path):
    for node in nodes_of(path):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def section(text, title):
    """The lines of a section that name an item, with the item and its first word."""
    lines = text.partition(f"\n{title}:\n")[2].partition("\n\n")[0].splitlines()
    return [match for line in lines if (match := re.fullmatch(r" {4}(\**\w+): (\S+).*", line))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_have_one_form(path):
    for text in docstrings(path):
        # One mark for code: a single backtick, without the roles of Sphinx.
        assert not re.search(r"``|:\w+:`", text), text
        for argument, word in (match.groups() for match in section(text, "Args")):
            assert not A_WORD.fullmatch(word), f"{argument}: {word} ... begins with a capital"
        for word in re.findall(r"\n(?:Returns|Yields):\n {4}(\S+)", text):
            assert not A_WORD.fullmatch(word), f"{word} ... begins with a capital"
        for error, word in (match.groups() for match in section(text, "Raises")):
            lower = word == "Ray" or not re.fullmatch(r"[A-Z][a-z]*[.,;:]?", word)
            assert lower, f"{error}: {word} ... goes on from the name, without a capital"
