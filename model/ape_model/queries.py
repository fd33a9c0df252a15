"""The queries of a frame as an index keeps them, and what scores them later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ape_model.inference.detect import mask_steps
from ape_model.network.boxes import corners
from ape_stream.values.queries import FrameQueries, NetworkFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.config import ApeConfig
    from ape_model.inference.mask_products import MaskProducts
    from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures, RawOutputs
    from ape_model.text.embedder import PromptEmbedder
    from ape_model.weights.registry import ModelFiles

__all__ = ["facts_of", "no_name", "queries_of"]


def facts_of(
    files: ModelFiles,
    network: Ape,
    embedder: PromptEmbedder,
    *,
    config: ApeConfig,
    weights: str,
    threshold: float,
    per_prompt: int,
    stuff: frozenset[str],
) -> NetworkFacts:
    """What scores the states of a network later.

    Args:
        files: Of the model.
        network: In its arithmetic.
        embedder: Of its prompts.
        config: Of the network, and how large it sees images.
        weights: Digest of the files.
        threshold: Lowest score kept for prompts without one of their own.
        per_prompt: Most regions of one prompt in one frame.
        stuff: Clean texts that are stuff.
    """
    dtype = network.alignment.log_scale.dtype

    def embed(texts: Sequence[str]) -> NDArray[Any]:
        return _array(embedder.embed(texts).to(dtype).float())

    return NetworkFacts(
        model=files.name,
        weights=weights,
        alignment={name: _array(value) for name, value in network.alignment.parts().items()},
        resizing=f"{config.canvas}/{config.size_divisor}/{config.wide_area}",
        dtype=str(dtype).removeprefix("torch."),
        text_tower=embedder.space.tower,
        text_dtype=embedder.space.dtype,
        text_pooling=embedder.space.pooling,
        threshold=threshold,
        mask_margin=config.mask_margin,
        per_prompt=per_prompt,
        stuff=tuple(sorted(stuff)),
        vocabulary=tuple(sorted(files.vocabulary | embedder.names)),
        embed=embed,
    )


def queries_of(
    network: Ape,
    products: MaskProducts,
    features: ImageFeatures,
    prompts: Sequence[PromptFeatures],
    heads: Sequence[RawOutputs],
    facts: NetworkFacts,
) -> list[FrameQueries]:
    """The queries of each image of a batch, which are the same for any names.

    Args:
        network: What made them.
        products: Its masks.
        features: Of `runner.encode_image`.
        prompts: Of each pass.
        heads: Of `runner.head`, of each pass.
        facts: Of the network.
    """
    passes = zip(prompts, heads, strict=True)
    outputs = next((head for one, head in passes if one.vectors is not None), None)
    if outputs is None:  # sentences alone
        outputs = products.runner.head(features, no_name(network))
    return [
        _of_image(network, products, features, outputs, image, facts)
        for image in range(len(features.sizes))
    ]


def no_name(network: Ape) -> PromptFeatures:
    """A name whose embedding is zero: the queries are the same for any."""
    parameter = network.alignment.log_scale
    return network.vocabulary(parameter.new_zeros(1, network.config.text_width))


def _of_image(
    network: Ape,
    products: MaskProducts,
    features: ImageFeatures,
    outputs: RawOutputs,
    image: int,
    facts: NetworkFacts,
) -> FrameQueries:
    made = outputs.hidden[image], outputs.mask_feature[image]
    # Graphs write the next frame into the same memory.
    overwritten = products.runner is not network
    hidden, feature = (tensor.clone() for tensor in made) if overwritten else made
    every = products.made(outputs, image)
    size, canvas, cells = features.sizes[image], features.canvas, feature.shape[-2:]

    @torch.inference_mode()
    def mask_logits(numbers: NDArray[Any]) -> NDArray[Any]:
        own = torch.from_numpy(numbers)
        logits = network.masks_of(hidden, feature, own) if every is None else every[own]
        return _array(mask_steps(logits).to(torch.int8))

    return FrameQueries(
        states=_stored(hidden),
        boxes=_array(corners(outputs.boxes[image]).clamp(0, 1).float()),
        cells=(cells[0], cells[1]),
        # In this order of operations, as `Regions.filled`: the last bit depends on it.
        filled=(cells[0] * (size[0] / canvas[0]), cells[1] * (size[1] / canvas[1])),
        mask_logits=mask_logits,
        facts=facts,
    )


def _stored(states: Tensor) -> NDArray[Any]:
    """States without loss; NumPy has no bfloat16: its bits."""
    return _array(states.view(torch.uint16) if states.dtype == torch.bfloat16 else states)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
