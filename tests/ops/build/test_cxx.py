"""Errors of the C++ compiler."""

import pytest

from ape_cuda_ops.build import cxx
from ape_cuda_ops.errors import CompileError


def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    bad = tmp_path / "bad-c++"
    bad.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo broken >&2; exit 3; }\n')
    bad.chmod(0o755)
    monkeypatch.setenv("CXX", str(bad))
    source = tmp_path / "any.cpp"
    source.write_text("int x;")
    with pytest.raises(CompileError, match="exit code 3: broken"):
        cxx.shared_library(source)
