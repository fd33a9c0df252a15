"""The network of a frame as CUDA graphs: its kernels are launched at once, not one by one.

    network = FrameGraph(ape)
    features = network.encode_image(images, sizes)    # replays what was captured for these sizes
    outputs = network.head(features, prompts)         # and for this count and kind of prompts

What is returned is overwritten by the next frame of the same sizes. A graph reads the memory of
its capture, so all that it reads is kept as long as it is. Not for use from several threads.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from ape_model.errors import VariantError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures, RawOutputs

__all__ = ["CudaCall", "FrameGraph"]

WARM_UP = 2
"""Calls before a capture: they compile and load kernels, choose algorithms and fill caches."""
KEPT = 3
"""Sizes whose graphs are kept, and for each so many counts and kinds of prompts, newest used."""
GIVEN = ("fusion", "classes", "counts", "vectors", "biases")
"""What a captured head takes of the prompts."""
Kept = TypeVar("Kept")


class _Call(Protocol):
    """A call whose inputs have the shapes of its first ones."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the call returns of these inputs."""


class CudaCall:
    """One call as a CUDA graph, with inputs and outputs of its own.

    Args:
        call: makes tensors on the GPU and waits for none of them; it must keep alive what it
            reads beside its inputs.
        inputs: on one GPU.

    Raises:
        VariantError: they are not on a GPU.
        RuntimeError: the call cannot be captured.
    """

    def __init__(self, call: _Call, inputs: tuple[Tensor, ...]) -> None:
        device = inputs[0].device
        if device.type != "cuda":
            raise VariantError(f"a CUDA graph needs a GPU, got {device}: call the network itself")
        self._call = call
        self._inputs = tuple(given.clone() for given in inputs)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    call(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(stream)
            # Other threads may use the GPU meanwhile; only this one's calls must be fit to capture.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self._output = call(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """Return the output of these inputs, in the same memory every time."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output


@dataclass(slots=True, eq=False)
class _Frame:
    """What was captured for one size."""

    encode: _Call
    features: ImageFeatures | None = None
    passes: int = 0
    """How often the head saw these features."""
    heads: OrderedDict[Hashable, _Call] = field(default_factory=OrderedDict)


class FrameGraph:
    """A network whose image and head passes are captured once for every size and replayed.

    Where a pass cannot be captured, a warning says why, once, and kernels are launched one by one.

    Args:
        network: in evaluation, on a GPU; its weights stay where they are.
        capture: makes the call that replays another.
    """

    def __init__(
        self, network: Ape, capture: Callable[[_Call, tuple[Tensor, ...]], _Call] = CudaCall
    ) -> None:
        self._network = network
        self._capture = capture
        self._frames: OrderedDict[Hashable, _Frame] = OrderedDict()
        self._one_by_one = False

    def encode_image(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> ImageFeatures:
        """As `Ape.encode_image`.

        Raises:
            VariantError: the images are not on a GPU.
        """
        canvas = (images.shape[2], images.shape[3])
        sizes = (canvas,) * len(images) if sizes is None else tuple(sizes)
        encode = partial(self._network.encode_image, sizes=sizes)
        key = (_form(images), sizes)
        if key not in self._frames:
            captured = self._captured(encode, (images,))
            if captured is None:
                return encode(images)
            self._frames[key] = _Frame(captured)
        frame = _used(self._frames, key)
        frame.features, frame.passes = frame.encode(images), 0
        return frame.features

    def head(self, features: ImageFeatures, prompts: PromptFeatures) -> RawOutputs:
        """As `Ape.head`, of the features that `encode_image` returned last for their size."""
        given = {name: getattr(prompts, name) for name in GIVEN}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}

        def head(*tensors: Tensor) -> RawOutputs:
            own = dict(zip(given, tensors, strict=True))
            return self._network.head(features, replace(prompts, **own))

        inputs = tuple(given.values())
        frame = next((f for f in self._frames.values() if f.features is features), None)
        if frame is None:  # not captured: there is no memory that a graph could read again
            return head(*inputs)
        # A pass of its own for each: the outputs of all passes live until the next frame.
        key = (frame.passes, *((name, _form(tensor)) for name, tensor in given.items()))
        frame.passes += 1
        if key not in frame.heads:
            captured = self._captured(head, inputs)
            if captured is None:
                return head(*inputs)
            frame.heads[key] = captured
        outputs: RawOutputs = _used(frame.heads, key)(*inputs)
        return outputs

    def region_masks(self, outputs: RawOutputs, image: int, queries: Tensor) -> Tensor:
        """As `Ape.region_masks`: how many are kept differs from frame to frame."""
        return self._network.region_masks(outputs, image, queries)

    def _captured(self, call: _Call, inputs: tuple[Tensor, ...]) -> _Call | None:
        """The call captured, or None where that failed, now or before."""
        if self._one_by_one:
            return None
        try:
            return self._capture(call, inputs)
        except RuntimeError as error:
            self._one_by_one = True
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no CUDA graph, kernels start one by one: {reason}", stacklevel=4)
            return None


def _form(tensor: Tensor) -> Hashable:
    """What a captured call cannot change of an input."""
    return tuple(tensor.shape), tensor.dtype, tensor.device


def _used(kept: OrderedDict[Hashable, Kept], key: Hashable) -> Kept:
    """Entry `key`, now the newest used; the oldest beyond `KEPT` is dropped."""
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return kept[key]
