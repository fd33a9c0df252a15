"""The tokenizer and both text towers against what the official code computed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ape_model.text.clip_tokenizer import ClipTokenizer
from ape_model.text.clip_tower import ClipTextEncoder, Pooling, TextConfig, TextTower, pool

_HERE = Path(__file__).parents[1]
_SHARED = _HERE.parents[2] / "shared" / "goldens"


def _folder() -> Path:
    named = os.environ.get("APE_GOLDENS")
    if named:
        return Path(named)
    return _SHARED if (_SHARED / "text.json").exists() else _HERE / "goldens"


GOLDENS = _folder()
TEXT = json.loads((GOLDENS / "text.json").read_text(encoding="utf-8"))
CASES = [name for name, case in TEXT["cases"].items() if isinstance(case, dict)]
LIMIT = {torch.float32: 1e-4, torch.float64: 1e-6}


def _tower(name: str) -> TextTower:
    case = TEXT["cases"][name]
    sizes = case["text_cfg"]
    config = TextConfig(
        width=sizes["width"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        out_width=case["embed_dim"],
        context_length=sizes["context_length"],
        vocabulary_size=sizes["vocab_size"],
        scale_in_text="net.text.logit_scale" in case["keys"],
    )
    tower = TextTower(config)
    weights = load_file(GOLDENS / f"text_{name}_weights.safetensors")
    table = torch.zeros(config.vocabulary_size, config.width)
    table[weights.pop("token_embedding.used_ids")] = weights.pop("token_embedding.used_rows")
    tower.load_state_dict({**weights, case["token_embedding_key"]: table}, strict=True)
    return tower.eval()


def _ids() -> torch.Tensor:
    return ClipTokenizer()(TEXT["prompts"], TEXT["context_length"])


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def test_golden_token_ids() -> None:
    rows = _ids().tolist()
    for prompt, row, whole, end in zip(
        TEXT["prompts"], rows, TEXT["token_ids_full"], TEXT["eot_index"], strict=True
    ):
        assert row == whole + [0] * (len(row) - len(whole)), prompt
        assert row.index(max(row)) == end, prompt


def test_golden_marks() -> None:
    tokenizer = ClipTokenizer()
    assert (tokenizer.start_id, tokenizer.end_id) == (TEXT["sot"], TEXT["eot"])


@pytest.mark.parametrize("name", CASES)
def test_golden_state_dict_keys(name: str) -> None:
    ours = {key: list(value.shape) for key, value in _tower(name).state_dict().items()}
    assert ours == TEXT["cases"][name]["keys"]


@pytest.mark.parametrize("name", CASES)
def test_golden_word_states(name: str) -> None:
    golden = load_file(GOLDENS / f"text_{name}.safetensors")
    ((key, theirs),) = [
        item for item in golden.items() if item[0].startswith("f32.last_hidden_state_stride")
    ]
    with torch.no_grad():
        ours = _tower(name)(_ids())[:, :: int(key.rpartition("stride")[2])]
    assert _error(ours, theirs) <= LIMIT[torch.float32]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_golden_end_state(name: str, dtype: torch.dtype) -> None:
    golden = load_file(GOLDENS / f"text_{name}.safetensors")
    key = {torch.float32: "f32", torch.float64: "f64"}[dtype] + ".last_hidden_state_eot"
    ids = _ids()
    with torch.no_grad():
        ours = pool(_tower(name).to(dtype)(ids), ids, Pooling.EOT)
    assert _error(ours, golden[key]) <= LIMIT[dtype]


@pytest.mark.parametrize("name", CASES)
def test_golden_mean_of_word_states(name: str) -> None:
    golden = load_file(GOLDENS / f"text_{name}.safetensors")
    ids = _ids()
    with torch.no_grad():
        ours = pool(_tower(name)(ids), ids, Pooling.MEAN)
    assert _error(ours, golden["f32.reduce_average"]) <= LIMIT[torch.float32]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_golden_encoder_cuts_and_sorts_without_a_trace(name: str, pooling: Pooling) -> None:
    golden = load_file(GOLDENS / f"text_{name}.safetensors")
    key = {Pooling.EOT: "f32.last_hidden_state_eot", Pooling.MEAN: "f32.reduce_average"}[pooling]
    ours = ClipTextEncoder(_tower(name), pooling).encode(TEXT["prompts"])
    assert _error(ours, golden[key]) <= LIMIT[torch.float32]
