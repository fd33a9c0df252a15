"""Errors of the kernels."""

from __future__ import annotations

__all__ = ["BackendError", "CompileError"]


class BackendError(RuntimeError):
    """No backend fits, or the one asked for cannot work here; the message lists what exists."""


class CompileError(BackendError):
    """A kernel's source could not be compiled or loaded; the message holds the compiler's own."""
