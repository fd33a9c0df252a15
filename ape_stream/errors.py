"""Every error that ape_stream raises on purpose, as one tree.

    ApeStreamError
    ├── UsageError            another value given by the user helps (exit code 2)
    │   ├── ConfigError       a run configuration or an option is wrong
    │   ├── PromptError       a prompt cannot be used
    │   ├── PluginError       a name has no plugin, or an extra is not installed
    │   └── ModelError        a model cannot be found or read
    ├── SourceError           a source cannot be opened or read
    │   └── TruncatedError    a source ended before the end in its header (exit code 3)
    ├── SinkError             an output cannot be written
    ├── StoppedError          a run was stopped before its files were read to their end
    ├── WireError             bytes are not a message of ours
    ├── CompileError          C++ of ours cannot be compiled or loaded here
    └── PipelineError         a stage failed while running; `__cause__` says why

A message is one line that says what to do. The command line prints it without a traceback.
"""

from __future__ import annotations

from typing import Self

__all__ = [
    "ApeStreamError",
    "CompileError",
    "ConfigError",
    "ModelError",
    "PipelineError",
    "PluginError",
    "PromptError",
    "SinkError",
    "SourceError",
    "StoppedError",
    "TruncatedError",
    "UsageError",
    "WireError",
    "reason_of",
]


class ApeStreamError(Exception):
    """Root of the tree: catch this to catch everything raised on purpose."""


class UsageError(ApeStreamError):
    """A value that the user gave cannot be used; the message says which would be."""


class ConfigError(UsageError):
    """A run configuration or an option is wrong."""


class PromptError(UsageError):
    """A prompt is empty, too long or otherwise unusable."""


class PluginError(UsageError):
    """A name has no plugin, or the extra that holds it is not installed."""


class ModelError(UsageError):
    """A model cannot be found, read or run here."""


class SourceError(ApeStreamError):
    """A source cannot be opened or read."""


class TruncatedError(SourceError):
    """A source broke off early; everything that could be decoded was delivered first."""


class SinkError(ApeStreamError):
    """An output cannot be written."""


class StoppedError(ApeStreamError):
    """A run was stopped before its files were read to their end; only its sinks are given this."""


class WireError(ApeStreamError):
    """Bytes from outside are not a message that this version reads."""


class PipelineError(ApeStreamError):
    """A stage of a running pipeline failed; `__cause__` holds the stage's own error."""

    @classmethod
    def of(cls, stage: str, error: BaseException) -> Self:
        """One line that names the stage and what it met, with `error` as its cause."""
        text = " ".join(str(error).split())
        if not isinstance(error, ApeStreamError):
            text = f"{type(error).__name__}: {text}"
        problem = cls(f"{stage} failed: {text}")
        problem.__cause__ = error
        return problem


class CompileError(ApeStreamError):
    """C++ of ours cannot be compiled or loaded here; the message quotes the compiler."""


def reason_of(error: BaseException) -> str:
    """What happened, for a message that names the file itself.

    Of an error of the system its text alone: `str` has its number and the file's name as well.
    """
    return str(getattr(error, "strerror", None) or error)
