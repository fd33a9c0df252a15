"""Compiling C++, and what is done where it cannot be."""

import ctypes
import logging
import platform

import numpy as np
import pytest

from ape_stream.errors import CompileError
from ape_stream.native import cxx
from ape_stream.native.arrays import address, numbers


def test_a_failing_compiler_is_quoted(tmp_path, monkeypatch):
    bad = tmp_path / "bad-c++"
    bad.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo broken >&2; exit 3; }\n')
    bad.chmod(0o755)
    monkeypatch.setenv("CXX", str(bad))
    source = tmp_path / "any.cpp"
    source.write_text("int x;")
    with pytest.raises(CompileError, match="exit code 3: broken"):
        cxx.shared_library(source)


def test_a_source_is_compiled_once_and_called_with_arrays(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_STREAM_CACHE", str(tmp_path))
    source = tmp_path / "sum.cpp"
    source.write_text(
        'extern "C" double sum(const double* a, long n)'
        "{ double t = 0; for (long k = 0; k < n; ++k) t += a[k]; return t; }"
    )
    library = cxx.load(source)
    library.sum.restype = ctypes.c_double
    every = np.arange(12, dtype=np.int16).reshape(3, 4)
    given = numbers(every[:, ::2], np.float64)
    assert library.sum(ctypes.c_void_p(address(given)), ctypes.c_long(given.size)) == 30
    assert numbers(given, np.float64) is given
    with pytest.raises(AssertionError):
        address(every[:, ::2])
    (kept,) = (tmp_path / "kernels").iterdir()
    stamp = kept.stat().st_mtime_ns
    assert cxx.shared_library(source) == kept
    assert kept.stat().st_mtime_ns == stamp


def test_a_warning_says_why_numpy_has_to_do_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cxx.load_if_possible(tmp_path / "keep.cpp") is None
    (line,) = caplog.messages
    assert line.startswith("keep runs in NumPy, several times slower: no C++ compiler found")
    assert "\n" not in line


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these levels are of x86-64")
@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ("fpu sse2", "x86-64-v2"),
        ("fpu abm avx2 bmi1 bmi2 f16c fma movbe", "x86-64-v3"),
        ("fpu abm avx2 bmi1 bmi2 f16c fma movbe avx512f", "x86-64-v3"),
        ("abm avx2 bmi1 bmi2 f16c fma movbe avx512bw avx512cd avx512dq avx512f avx512vl",
         "x86-64-v4"),
        (None, "x86-64-v2"),
    ],
)  # fmt: skip
def test_the_level_of_a_processor(flags, level, tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nflags\t\t: none\n")
    monkeypatch.setattr(cxx, "CPU_INFO", info)
    cxx._features.cache_clear()
    try:
        assert cxx.architecture_flags() == (f"-march={level}",)
    finally:
        cxx._features.cache_clear()


def test_who_waits_for_the_compiler_sees_why_once(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_STREAM_CACHE", str(tmp_path))
    said = []
    monkeypatch.setattr(
        logging.getLogger("ape_stream.notice"), "info", lambda *one: said.append(one)
    )
    source = tmp_path / "any.cpp"
    source.write_text("int x;")
    assert cxx.shared_library(source) == cxx.shared_library(source)
    assert [text % name for text, name in said] == [
        "compiling any.cpp for this processor, once: it takes some seconds"
    ]
