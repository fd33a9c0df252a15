"""What networks of transformers share: they are read from a folder or the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ape_peers.perceiver import PeerPerceiver
from ape_peers.places import load_pretrained, model_files
from ape_stream.devices import parse_device, parse_dtype

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PretrainedPeer"]


class PretrainedPeer(PeerPerceiver):
    """A network of transformers as a perceiver.

    Args:
        model: Folder of a model, or its name on the Hugging Face Hub.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        dtype: "float32", "bfloat16" or "float16".
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped; 1 keeps both.
        per_prompt: Most regions of one prompt in one frame.

    Raises:
        ModelError: the model is not here and cannot be downloaded, or the device is not here.
        UsageError: a number is out of its range.
    """

    kind: ClassVar[str]
    """Class of transformers that reads the network."""
    default: ClassVar[str]
    """Name of the model that is taken without the option `model`."""

    def __init__(
        self,
        *,
        model: str,
        device: str,
        dtype: str,
        threshold: float,
        nms: float,
        per_prompt: int,
    ) -> None:
        super().__init__(threshold=threshold, nms=nms, per_prompt=per_prompt)
        self._place, self._dtype = parse_device(device), parse_dtype(dtype)
        self._tokenizer = load_pretrained("AutoTokenizer", model)
        network: Any = load_pretrained(self.kind, model)
        self.network: Any = network.eval().to(self._place, self._dtype)

    @classmethod
    def weights(cls, *, model: str | None = None, **_: Any) -> list[Path]:
        """The files that a perceiver with these options reads; see `KnowsWeights`."""
        return model_files(model or cls.default)
