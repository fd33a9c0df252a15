"""Any detector with the calls of torchvision: images in, boxes, labels and scores out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import cv2
import torch

from ape_peers.perceiver import PeerPerceiver
from ape_peers.regions import NEVER, Candidates
from ape_stream import masks
from ape_stream.devices import parse_device
from ape_stream.errors import ConfigError, ModelError, PromptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ape_stream.types import Frame, Mask, PromptSet

    Detector = Callable[[list[Tensor]], Sequence[Mapping[str, Tensor]]]
    """Takes (3, H, W) float32 images, red-green-blue, 0..1; gives `boxes` (N, 4) in pixels,
    `labels` (N,), `scores` (N,) and maybe `masks` (N, 1, H, W), 0..1, for each."""

__all__ = ["DetectorPerceiver", "detector"]


class DetectorPerceiver(PeerPerceiver):
    """A detector of fixed classes as a perceiver. Prompts are names of its classes.

        weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT
        network = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=weights).eval()
        perceiver = DetectorPerceiver(network, weights.meta["categories"])

    Args:
        network: Called as detectors of torchvision are; moved to the device if it has `to`.
        names: The class of each label, in any case of letters. Two labels may have one name.
        threshold: Lowest score kept for prompts without one of their own, 0..1.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda:1" ...
        nms: Of two boxes of one prompt with a greater IoU, the weaker one is dropped.
        per_prompt: Most regions of one prompt in one frame.

    Raises:
        ModelError: the device is not here.
        UsageError: a number is out of its range.
    """

    def __init__(
        self,
        network: Detector,
        names: Sequence[str],
        *,
        threshold: float = 0.5,
        device: str = "auto",
        nms: float = 1.0,
        per_prompt: int = 100,
    ) -> None:
        super().__init__(threshold=threshold, nms=nms, per_prompt=per_prompt)
        self._place = parse_device(device)
        move = getattr(network, "to", None)
        self._network: Detector = network if move is None else move(self._place)
        self._names = [" ".join(name.split()).casefold() for name in names]
        self._prompts: dict[str, int] = {}

    def encode(self, prompts: PromptSet) -> None:
        """Take the prompts.

        Raises:
            PromptError: one is no class of the detector.
        """
        known = set(self._names)
        for prompt in prompts:
            if prompt.text.casefold() not in known:
                some = ", ".join(list(dict.fromkeys(self._names))[:10])
                raise PromptError(
                    f"prompt {prompt.text!r} is none of the {len(known)} classes of this detector:"
                    f" {some} ..."
                )
        self._prompts = {prompt.text.casefold(): k for k, prompt in enumerate(prompts)}

    def candidates(self, frame: Frame) -> list[Candidates]:
        """What the detector finds, of all classes that are asked for."""
        rgb = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(rgb).permute(2, 0, 1).float().div(255)
        [found] = self._network([image.to(self._place)])
        labels, own = found["labels"].cpu(), found["scores"].float().cpu()
        # Each box has a score for one prompt only.
        scores = torch.full((len(labels), len(self._prompts)), NEVER)
        for row, label in enumerate(labels.tolist()):
            if (prompt := self._prompts.get(self._name(label))) is not None:
                scores[row, prompt] = own[row]
        pixels = found.get("masks")
        return [
            Candidates(
                boxes=found["boxes"].float().cpu(),
                scores=scores,
                prompt_ids=torch.arange(len(self._prompts)),
                masks=None if pixels is None else lambda rows: _masks(pixels, rows),
            )
        ]

    def _name(self, label: int) -> str:
        if not 0 <= label < len(self._names):
            raise ModelError(f"the detector gave label {label}, of {len(self._names)} names")
        return self._names[label]


def _masks(pixels: Tensor, rows: list[int]) -> tuple[Mask, ...]:
    """The masks of boxes; (N, 1, H, W) or (N, H, W), at least one half is inside."""
    return tuple(masks.crop((pixels[row].float() >= 0.5).squeeze(0).cpu().numpy()) for row in rows)


def detector(
    *,
    model: str,
    threshold: float = 0.5,
    device: str = "auto",
    nms: float = 1.0,
    per_prompt: int = 100,
) -> DetectorPerceiver:
    """The detector that a function of a module makes.

    Args:
        model: "my_package.my_module:make"; the function returns the detector and its class names.
        threshold: See `DetectorPerceiver`.
        device: See `DetectorPerceiver`.
        nms: See `DetectorPerceiver`.
        per_prompt: See `DetectorPerceiver`.

    Raises:
        ModelError: there is no such function, or it does not return these two.
    """
    module, colon, name = model.partition(":")
    if not colon:
        raise ConfigError(f"a detector is named as my_package.my_module:make, not {model!r}")
    try:
        make: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"no function {model}: {error}") from error
    made = make()
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise ModelError(f"{model}() must return the detector and its class names")
    return DetectorPerceiver(
        *made, threshold=threshold, device=device, nms=nms, per_prompt=per_prompt
    )
