"""Errors of the kernels."""

from __future__ import annotations

__all__ = ["BackendError", "CompileError", "DeviceCheckError"]


class BackendError(RuntimeError):
    """No backend fits, or the one asked for cannot work here; the message lists what exists."""


class CompileError(BackendError):
    """A kernel could not be compiled or loaded; the message quotes the compiler."""


class DeviceCheckError(BackendError):
    """Something on a GPU failed or differed from its reference; the message says what."""
