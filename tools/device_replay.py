"""Time a frame of a model on a GPU with and without CUDA graphs, and two ways to upload it; JSON.

python tools/device_replay.py MODEL [SIDE]
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ape_cuda_ops.bench import interleaved
from ape_model.benchmark.frame import make_frame, open_network
from ape_model.inference.cuda_graphs import CudaGraphRunner
from ape_model.inference.transfer import PinnedUploader

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 10
FRAME = (1080, 1920, 3)


def medians(calls: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Milliseconds of each call, the host waiting for the GPU."""
    rounds = interleaved(calls, ROUNDS, device)
    return {name: 1e3 * statistics.median(wall for _, wall in rounds[name]) for name in rounds}


@torch.inference_mode()
def replay(
    name: str, side: int | None, dtype: torch.dtype, device: torch.device
) -> dict[str, object]:
    """A frame launched kernel by kernel, and replayed as graphs; whether both agree."""
    network, _ = open_network(name, device)
    frame = make_frame(network, side or network.config.canvas, 1)
    network = network.to(dtype)
    images, prompts = frame.image.to(dtype), network.vocabulary(frame.embeddings.to(dtype))
    graphs = CudaGraphRunner(network)

    def run(network: Any) -> torch.Tensor:
        return network.head(network.encode_image(images), prompts).logits

    expected, got = run(network).clone(), run(graphs).clone()
    times = medians({"eager": lambda: run(network), "graphs": lambda: run(graphs)}, device)
    error = ((got - expected).float().norm() / expected.float().norm()).item()
    return {"dtype": str(dtype), "milliseconds": times, "error": error}


def upload(device: torch.device) -> dict[str, object]:
    """A 1080p frame by pinned buffers that take turns, and from ordinary memory."""
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    ring = PinnedUploader(device)
    calls = {"ring": lambda: ring(frame), "pageable": lambda: torch.from_numpy(frame).to(device)}
    equal = torch.equal(ring(frame).cpu(), torch.from_numpy(frame))
    return {"milliseconds": medians(calls, device), "equal": equal}


def main(name: str, side: str | None = None) -> None:
    """Print one JSON object."""
    device = torch.device("cuda", 0)
    dtypes = (torch.float32, torch.bfloat16)
    frames = [replay(name, int(side) if side else None, dtype, device) for dtype in dtypes]
    about = {"model": name, "device": torch.cuda.get_device_name(device)}
    print(json.dumps({**about, "frames": frames, "upload": upload(device)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
