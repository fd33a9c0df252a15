"""The network as CUDA graphs: all kernels of a pass are launched by one call, not one by one.

    network = CudaGraphRunner(ape)
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

    from ape_model.network.align import ExactAlignment
    from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures, RawOutputs

__all__ = ["CapturedCall", "CudaGraphRunner"]

WARM_UP = 2
"""Calls before a capture: they compile and load kernels, choose algorithms and fill caches."""
CACHE_SIZE = 3
"""Sizes whose graphs are kept, newest used, and so many counts and kinds of prompts of each."""
CAPTURED_INPUTS = ("fusion", "classes", "vectors", "biases")
"""Fields of the prompts that are inputs of a captured head."""
Cached = TypeVar("Cached")


class _Call(Protocol):
    """A call whose inputs have the shapes of its first ones."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Return what the call returns of these inputs."""


class CapturedCall:
    """One call as a CUDA graph, with inputs and outputs of its own.

    Args:
        call: Must not synchronise with the host, and must keep alive all that it reads other than
            its inputs.
        inputs: On one GPU.

    Raises:
        VariantError: they are not on a GPU.
        RuntimeError: the call cannot be captured.
    """

    def __init__(self, call: _Call, inputs: tuple[Tensor, ...]) -> None:
        device = inputs[0].device
        if device.type != "cuda":
            raise VariantError(f"a CUDA graph needs a GPU, got {device}: call the network itself")
        self._call = call
        # A graph reads fixed addresses: every call copies its inputs to these.
        self._inputs = tuple(given.clone() for given in inputs)
        self._graph = torch.cuda.CUDAGraph()
        # Work on the default stream cannot be captured: warm up and capture on one of our own.
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
class _CapturedShape:
    """Graphs of one batch size and image size."""

    encode: _Call
    features: ImageFeatures | None = None
    head_calls: int = 0
    """How often the head was called with these features."""
    heads: OrderedDict[Hashable, _Call] = field(default_factory=OrderedDict)


class CudaGraphRunner:
    """A network whose image and head passes are captured once for every size and replayed.

    Where a pass cannot be captured, one warning gives the reason, and kernels are launched one by
    one.

    Args:
        network: In evaluation, on a GPU; its weights stay where they are.
        capture: Makes the call that replays another.
    """

    def __init__(
        self, network: Ape, capture: Callable[[_Call, tuple[Tensor, ...]], _Call] = CapturedCall
    ) -> None:
        self._network = network
        self._capture = capture
        self._frames: OrderedDict[Hashable, _CapturedShape] = OrderedDict()
        self._eager = False

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
        key = (_signature(images), sizes)
        if key not in self._frames:
            captured = self._captured(encode, (images,))
            if captured is None:
                return encode(images)
            self._frames[key] = _CapturedShape(captured)
        frame = _used(self._frames, key)
        # `head` knows its graphs by the identity of these features.
        frame.features, frame.head_calls = frame.encode(images), 0
        return frame.features

    def head(self, features: ImageFeatures, prompts: PromptFeatures) -> RawOutputs:
        """As `Ape.head`, of the features that `encode_image` returned last for their size."""
        given = {name: getattr(prompts, name) for name in CAPTURED_INPUTS}
        given = {name: tensor for name, tensor in given.items() if tensor is not None}

        def head(*tensors: Tensor) -> RawOutputs:
            # Features and what else is in the prompts are fixed by the capture.
            own = dict(zip(given, tensors, strict=True))
            return self._network.head(features, replace(prompts, **own))

        inputs = tuple(given.values())
        frame = next((f for f in self._frames.values() if f.features is features), None)
        if frame is None:  # not captured: there is no memory that a graph could read again
            return head(*inputs)
        # A pass of its own for each: the outputs of all passes live until the next frame.
        key = (frame.head_calls, *((name, _signature(tensor)) for name, tensor in given.items()))
        frame.head_calls += 1
        if key not in frame.heads:
            captured = self._captured(head, inputs)
            if captured is None:
                return head(*inputs)
            frame.heads[key] = captured
        outputs: RawOutputs = _used(frame.heads, key)(*inputs)
        return outputs

    def exact_alignment(
        self, outputs: RawOutputs, prompts: PromptFeatures
    ) -> ExactAlignment | None:
        """As `Ape.exact_alignment`: a few small products, of as many pairs as there are."""
        return self._network.exact_alignment(outputs, prompts)

    def region_masks(
        self, outputs: RawOutputs, image: int, queries: Tensor | None = None
    ) -> Tensor:
        """As `Ape.region_masks`: how many are kept differs from frame to frame."""
        return self._network.region_masks(outputs, image, queries)

    def _captured(self, call: _Call, inputs: tuple[Tensor, ...]) -> _Call | None:
        """The call captured, or None where that failed, now or before."""
        if self._eager:
            return None
        try:
            return self._capture(call, inputs)
        except RuntimeError as error:
            self._eager = True  # what failed once would fail for every size
            reason = str(error).partition("\n")[0]
            warnings.warn(f"no CUDA graph, kernels start one by one: {reason}", stacklevel=4)
            return None


def _signature(tensor: Tensor) -> Hashable:
    """Properties of an input that are fixed by the capture."""
    return tuple(tensor.shape), tensor.dtype, tensor.device


def _used(kept: OrderedDict[Hashable, Cached], key: Hashable) -> Cached:
    """Entry `key`, now the newest used; the oldest beyond `CACHE_SIZE` is dropped."""
    kept.move_to_end(key)
    while len(kept) > CACHE_SIZE:
        kept.popitem(last=False)
    return kept[key]
