"""Where a model of a library lies, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import ModelError
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_pretrained", "model_files", "model_folder"]

TRANSFORMERS: Final = "transformers"
"""The extra of `ape-stream` for the models of that library."""
_FILES: Final = ("*.json", "*.txt", "*.safetensors")
"""What is taken of a repository: no code, and no pickles."""


def model_folder(model: str) -> Path:
    """The folder of a model: a local one, or that of a repository of the Hugging Face Hub.

    A repository that is not on this machine is downloaded, without code and pickles.

    Raises:
        ModelError: there is no such folder or repository, or it cannot be downloaded.
        PluginError: the extra is not installed.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists() or model.startswith((".", "/", "~")):
        raise ModelError(f"{model} is no folder with config.json and model.safetensors")
    hub = library("huggingface_hub", TRANSFORMERS)
    try:
        return Path(_snapshot(hub.snapshot_download, model))
    except Exception as error:  # the client and its transport raise errors of several libraries
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"cannot get {model} from the Hugging Face Hub: {reason}") from error


def _snapshot(download: Callable[..., str], model: str) -> str:
    """The copy on this machine, without a question to the Hub, or a new one."""
    try:
        return download(model, allow_patterns=_FILES, local_files_only=True)
    except FileNotFoundError:
        return download(model, allow_patterns=_FILES)


def model_files(model: str) -> list[Path]:
    """The files that results of a model depend on; see `KnowsWeights`.

    Raises:
        ModelError: the folder cannot be found, or holds no weights.
    """
    folder = model_folder(model)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder} has no *.safetensors: other files of weights are not read")
    return [*weights, *sorted(folder.glob("*.json")), *sorted(folder.glob("*.txt"))]


def load_pretrained(kind: str, model: str) -> Any:
    """Something that transformers reads from the folder of a model.

    Args:
        kind: A class of transformers with `from_pretrained`, such as "AutoTokenizer".
        model: The folder or repository.

    Raises:
        ModelError: it cannot be read.
        PluginError: transformers is not installed, or has no such class.
    """
    folder = model_folder(model)
    reader = getattr(library("transformers", TRANSFORMERS), kind)
    options = {} if kind == "AutoTokenizer" else {"use_safetensors": True}
    try:
        return reader.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # what a file may hold, transformers may trip over in any way
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder} cannot be read as {kind}: {reason}") from error
