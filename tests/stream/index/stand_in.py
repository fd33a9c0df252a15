"""A perceiver whose queries follow from the pixels alone, as a plugin that any process can find."""

MODULE = """
import numpy as np
from ape_stream.testing import OraclePerceiver
from ape_stream.types import Maps
from ape_stream.values.queries import FrameQueries, NetworkFacts

WIDTH, QUERIES, CELLS = 16, 12, (6, 8)

def made(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

class Model(OraclePerceiver):
    def __init__(self, *, model: str = "stand-in", device: str = "auto", resizing="64"):
        super().__init__()
        self.facts = NetworkFacts(
            model=model, weights="ab" * 32, resizing=resizing, dtype="float32",
            alignment={
                "weight": made(1, WIDTH, WIDTH), "offset": made(2, WIDTH),
                "bias_weight": made(3, WIDTH), "bias_offset": np.float32(-1.5),
                "scale": np.float32(1.5),
            },
            text_tower="cd" * 32, text_dtype="float32", text_pooling="mean", threshold=0.5,
            mask_margin=0.05, per_prompt=100, stuff=("sky",), vocabulary=("cat", "dog", "sky"),
            embed=lambda texts: np.stack([made(sum(map(ord, text)), WIDTH) for text in texts]),
        )

    def perceive_with_maps(self, frames, wanted):
        found = self.perceive(frames)
        return [(one, Maps(queries=self.queries(f))) for one, f in zip(found, frames)]

    def queries(self, frame):
        seed = int(frame.image[::7, ::7].astype(np.int64).sum())
        states = made(seed, QUERIES, WIDTH) + made(9, QUERIES, WIDTH)
        corners = np.sort(np.random.default_rng(5).random((QUERIES, 2, 2)), axis=1)
        boxes = (0.3 * corners + 0.7 * np.round(corners, 1)).reshape(-1, 4).astype(np.float32)
        logits = np.round(made(seed + 1, QUERIES, *CELLS) * 16).astype(np.int8)
        return FrameQueries(
            states, boxes, CELLS, (6.0, 8.0), lambda numbers: logits[numbers], self.facts
        )
"""

ENTRY_POINTS = """
[ape_stream.perceivers]
queries = stand_in_model:Model
"""


def install(folder):
    """As a distribution in a folder of the path."""
    (folder / "stand_in_model.py").write_text(MODULE)
    info = folder / "stand_in_model-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: stand-in-model\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
