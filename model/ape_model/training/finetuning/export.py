"""From tuned weights to a model that `--model` takes: what was not learnt stays to the bit."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from ape_model.errors import CheckpointError
from ape_model.io.safetensors_io import read_metadata, read_safetensors
from ape_model.weights.import_official import FORMAT, TEXT_FILE, VISION_FILE
from ape_model.weights.state_dict import content_digest, save_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from ape_model.network.ape import Ape
    from ape_model.weights.registry import ModelFiles

__all__ = ["export_tuned"]


def export_tuned(
    folder: Path,
    network: Ape,
    learnt: Collection[str],
    files: ModelFiles,
    names: Collection[str],
    facts: Mapping[str, object],
) -> str:
    """Write a folder that `--model` and `--init` take.

    Args:
        folder: To write to.
        network: With the tuned weights under their official names.
        learnt: Names of the weights that were tuned; all others are copied from the model's file.
        files: Of the model that the run started from; its text tower is linked, not loaded.
        names: Clean texts that were learnt as names.
        facts: Seed, steps and the like, for the header.

    Returns:
        SHA-256 (hex) of the text tower that the folder's model belongs to.

    Raises:
        CheckpointError: a file cannot be read or written.
    """
    text_digest = _bring_text(files, folder / TEXT_FILE)
    tensors, label = read_safetensors(files.vision)
    aliases: dict[str, str] = json.loads(label.get("aliases", "{}"))
    state = network.state_dict()
    # In the dtype of the file, which may be half of what was trained in.
    tensors |= {key: state[key].to(tensors[key].dtype) for key in learnt if key in tensors}
    header = {key: value for key, value in label.items() if key != "aliases"}
    header |= {
        "format": FORMAT,
        "variant": files.variant,
        "part": "vision",
        "text_tower": files.text_tower,
        "text_sha256": text_digest,
        "names": json.dumps(sorted(files.vocabulary | set(names)), ensure_ascii=False),
        "stuff": json.dumps(sorted(files.stuff), ensure_ascii=False),
    }
    header |= {key: str(value) for key, value in facts.items()}
    save_weights(folder / VISION_FILE, tensors, aliases, header)
    return text_digest


def _bring_text(files: ModelFiles, target: Path) -> str:
    """Put the text tower into the folder, where there is one; return its digest."""
    source = files.text
    if source is None:
        return files.text_digest
    if "text_sha256" not in read_metadata(source):  # the small one that ships has no such header
        tensors, label = read_safetensors(source)
        digest = content_digest(tensors)
        shared = {"format": FORMAT, "text_tower": files.text_tower, "text_sha256": digest}
        own = {"variant": files.variant, "part": "text"}
        save_weights(target, tensors, {}, label | shared | own)
        return digest
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}") from error
    return files.text_digest
