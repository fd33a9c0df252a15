"""A tiny model in the shape of a released one, for tests that read and write weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ape_model.config import ApeConfig, VitConfig
from ape_model.network.ape import Ape
from ape_model.text.clip_tower import TEXT_TOWERS, TextConfig, TextTower
from ape_model.weights.import_official import Layout
from ape_model.weights.state_dict import aliases_of, is_recomputed

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: the helpers of the tests

CONFIG = ApeConfig(
    "tiny",
    VitConfig(width=32, depth=2, heads=2, window=2, window_blocks=(0,), pretrain_grid=4),
    canvas=64, hidden=32, heads=4, ffn=32, encoder_layers=1, decoder_layers=2, queries=10,
    neck=True, fusion_width=32, fusion_heads=4, text_width=16, norm_groups=8,
)  # fmt: skip
TEXT = TextConfig(width=16, layers=1, heads=2, out_width=16, scale_in_text=False)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in module.state_dict().items() if not is_recomputed(k)}


@dataclass(frozen=True)
class TinyRelease:
    network: Ape
    tower: TextTower
    layout: Layout
    text_config: TextConfig

    @staticmethod
    def make() -> TinyRelease:
        torch.manual_seed(0)
        network, tower = Ape(CONFIG), TextTower(TEXT).half()
        for parameter in [*network.parameters(), *tower.parameters()]:
            nn.init.normal_(parameter)
        layout = Layout(_shapes(network), _shapes(tower), aliases_of(network), "eva02-bigE")
        return TinyRelease(network, tower, layout, TEXT)

    @staticmethod
    def empty() -> tuple[Ape, TextTower]:
        return Ape(CONFIG), TextTower(TEXT).half()

    def official(self) -> dict[str, Any]:
        """What the official training loop saves, its optimizer and NumPy scalars among it."""
        state = {f"model_vision.{k}": v for k, v in self.network.state_dict().items()}
        state |= {f"model_vision.model_language.{k}": v for k, v in self.tower.state_dict().items()}
        state["model_vision.criterion.0.fed_loss_cls_weights"] = torch.ones(7)
        optimizer = {"state": {0: {"exp_avg": torch.ones(4), "step": np.float64(3)}}, "lr": 1e-4}
        return {"model": state, "trainer": {"optimizer": optimizer}, "iteration": 720_000}


@pytest.fixture(scope="session")
def tiny() -> TinyRelease:
    return TinyRelease.make()


@pytest.fixture
def released(tiny: TinyRelease, tmp_path: Path) -> Path:
    path = tmp_path / "model_final.pth"
    torch.save(tiny.official(), path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home of its own: nothing of the machine's is read or written."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def tiny_as_d(tiny: TinyRelease, monkeypatch: pytest.MonkeyPatch) -> TinyRelease:
    """Let the tiny release pass for the released model D."""
    monkeypatch.setattr(Layout, "of", lambda _: tiny.layout)
    monkeypatch.setitem(TEXT_TOWERS, tiny.layout.text_tower, tiny.text_config)
    return tiny


@pytest.fixture
def shaken():
    """Makes a network of a config in which no weight is left where it starts, often at zero."""

    def make(config: ApeConfig) -> Ape:
        torch.manual_seed(0)
        made = Ape(config).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return made

    return make
