"""The pretrained sentence encoder that nano's text tower is distilled from: training only.

`sentence-transformers` (the extra `distil`) runs it from a local folder, such as a copy of
`sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0). Nothing is downloaded, and nothing of the
teacher ships: the small tower learns from its vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_model.errors import CheckpointError, ModelMissingError
from ape_model.io.read_errors import read_errors
from ape_model.training.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from torch import Tensor

__all__ = ["Teacher"]

_CONFIG = "modules.json"
"""The file that makes a folder a model of sentence-transformers."""


class Teacher:
    """Sentence vectors of a pretrained encoder, on the CPU.

    Args:
        folder: A model of sentence-transformers.

    Raises:
        ModelMissingError: the folder holds none.
        CheckpointError: it is damaged.
        TrainingError: sentence-transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / _CONFIG).is_file():
            raise ModelMissingError(
                f"{folder / _CONFIG} is missing: give the folder of a sentence-transformers model,"
                " such as all-MiniLM-L6-v2"
            )
        library = _import_library()
        with read_errors(folder / _CONFIG, CheckpointError, "download the model again"):
            self._encoder = library.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True
            )

    def vocabulary(self) -> list[str]:
        """Return whole words of at least three letters, the frequent ones first."""
        # WordPiece vocabularies are sorted by frequency; continued pieces begin with "##".
        rows: dict[str, int] = self._encoder.tokenizer.get_vocab()
        words = sorted(rows, key=rows.__getitem__)
        return [w for w in words if w.isascii() and w.isalpha() and len(w) >= 3]

    def encode(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Encode texts.

        Args:
            texts: N texts.
            batch: Texts at once.

        Returns:
            (N, D) float32 of length one; D is 384 for MiniLM.
        """
        return self._encoder.encode(
            list(texts),
            batch_size=batch,
            show_progress_bar=False,
            convert_to_tensor=True,
            normalize_embeddings=True,
        )


def _import_library() -> ModuleType:
    try:
        import sentence_transformers  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise TrainingError(
            f"distillation needs sentence-transformers: pip install 'ape-stream[distil]' ({error})"
        ) from error
    return sentence_transformers
