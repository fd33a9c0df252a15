"""Average two networks: `average_weights.py FIRST SECOND SHARE OUT` (Wortsman et al. 2022).

Each is a `vision.safetensors` of one architecture; SHARE, 0..1, is the second one's. Names and
settings are those of the first.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Write `(1 - share) * first + share * second`, in the first one's dtypes.

    Raises:
        ValueError: the two have different tensors.
    """
    with safe_open(first, "pt") as one, safe_open(second, "pt") as other:
        if set(one.keys()) != set(other.keys()):
            raise ValueError(f"{first} and {second} are of different architectures")
        made = {}
        for key in one.keys():  # noqa: SIM118 (a file, not a dict)
            tensor = one.get_tensor(key)
            if tensor.is_floating_point():
                mixed = (1 - share) * tensor.float() + share * other.get_tensor(key).float()
                tensor = mixed.to(tensor.dtype)
            made[key] = tensor
        facts = dict(one.metadata() or {}) | {
            key: f"{one.metadata()[key]}+{other.metadata()[key]}"
            for key in ("images", "recipe", "seed", "steps")
        }
    save_file(made, out, metadata=facts)


if __name__ == "__main__":
    average(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
