"""Our own files of weights: strict, whole, and honest when damaged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ape_model.errors import CheckpointError
from ape_model.io.safetensors_io import read_metadata, read_safetensors, write_safetensors
from ape_model.weights.state_dict import load_weights


def test_loading_is_strict_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"weight": torch.ones(2, 3), "extra": torch.ones(1)}, {})
    with pytest.raises(CheckpointError, match=r"1 missing \(bias\), 1 left over \(extra\)"):
        load_weights(nn.Linear(3, 2), path)


def test_every_dtype_and_shape_survives(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "double": torch.randn(1, 5).double(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "long": torch.arange(3),
        "byte": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "strided": torch.randn(4, 6).T[::2],
        "expanded": torch.zeros(()).expand(3, 3),
        "expanded to one": torch.full((), 1.5).expand(1),
        "part": torch.arange(9.0)[4:7],
    }
    write_safetensors(tmp_path / "t.safetensors", tensors, {"note": "“quoted”"})
    back, label = read_safetensors(tmp_path / "t.safetensors")
    assert label == {"note": "“quoted”"}
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_damaged_weights_say_so(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"weight": torch.ones(2, 3)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="import the model again"):
        read_metadata(path)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_weights(nn.Linear(3, 2), path)


def test_a_damaged_map_of_aliases(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"weight": torch.ones(2, 3)}, {"aliases": '{"bias": "gone"}'})
    with pytest.raises(
        CheckpointError, match=r"w\.safetensors is damaged .*import the model again"
    ):
        load_weights(nn.Linear(3, 2), path)


def test_a_disk_without_room_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs .* and the disk has"):
        write_safetensors(tmp_path / "w.safetensors", {"weight": torch.ones(99)}, {})
    assert not list(tmp_path.iterdir())


_FILL = """
import resource, signal, sys, torch
from pathlib import Path
from ape_model.errors import CheckpointError
from ape_model.io.safetensors_io import write_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
write_safetensors(path, {"weight": torch.zeros(8)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_safetensors(path, {"weight": torch.ones(100_000)}, {})
except CheckpointError as error:
    print(error)
"""


def test_a_disk_that_fills_up_costs_nothing_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    models = [str(folder) for folder in map(Path, sys.path) if folder.name in ("model", "cuda_ops")]
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(models)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert re.search(r"w\.safetensors \(0\.4 MB\) cannot be written: File too large", done.stdout)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]
    assert torch.equal(read_safetensors(path)[0]["weight"], torch.zeros(8))
