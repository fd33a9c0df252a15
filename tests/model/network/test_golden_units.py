"""Single building blocks against tensors of the official code."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ape_cuda_ops.ops import msda, msda_fused, nms_grouped
from ape_cuda_ops.resize import resize_bytes
from ape_model.inference.preprocess import fitted_size
from ape_model.network.align import Align
from ape_model.network.deformable_attention import DeformableAttention
from ape_model.network.fusion import FusionBlock
from ape_model.network.geometry import Levels, sine_position
from ape_model.network.rope import rope_table, rotate
from ape_model.network.vit import resize_positions
from ape_model.reference import modules as reference
from ape_model.reference.nms import nms_keep
from ape_model.reference.patch import reference_mode

ROOT = Path(__file__).resolve().parents[3]


def golden_dir():
    if "APE_GOLDENS" in os.environ:
        return Path(os.environ["APE_GOLDENS"])
    shared = ROOT / "../shared/goldens"
    return shared if shared.is_dir() else ROOT / "tests/model/goldens"


def load(name):
    path = golden_dir() / f"unit_{name}.safetensors"
    if not path.exists():
        pytest.skip(f"this set of goldens has no {path.name}")
    return load_file(path)


def weights(golden, prefix="w."):
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def close(ours, golden, tolerance=1e-4):
    error = (ours.double() - golden.double()).abs().max() / golden.double().abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def levels_of(shapes):
    return Levels(tuple((int(h), int(w)) for h, w in shapes))


def test_golden_sampling():
    g = load("msda_op")
    for dtype, out, tolerance in (
        (torch.float32, "out", 1e-4),
        (torch.float64, "out_f64", 1e-6),
    ):
        shapes = [tuple(s) for s in g["shapes"].tolist()]
        ours = msda(g["value"].to(dtype), shapes, g["loc"].to(dtype), g["weights"].to(dtype))
        close(ours, g[out], tolerance)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "as written"])
@pytest.mark.parametrize("corners", [2, 4])
def test_golden_deformable_attention(corners, plain):
    g = load("msda_module")
    w = weights(g)
    places = g[f"ref{corners}"]
    width, n_levels = g["query"].shape[-1], places.shape[2]
    heads = load("msda_op")["loc"].shape[2]
    points = w["attention_weights.bias"].shape[0] // (heads * n_levels)
    module = DeformableAttention(width, heads=heads, levels=n_levels, points=points)
    module.load_state_dict(w)
    with torch.inference_mode():
        padded = g["key_padding_mask"].bool()
        value = module.project_value(g["value"]).masked_fill(padded[..., None], 0.0)
        call = (g["query"] + g["query_pos"], places, value, levels_of(g["shapes"]))
        if plain:
            with reference_mode(module):
                ours = module(*call)
        else:
            ours = module(*call)
    close(g["query"] + ours, g[f"out_ref{corners}"])


def fusion_block(g, case):
    w = weights(g, "w.b_attn.")
    width, text = w["attn.v_proj.weight"].shape[0], g[f"{case}.l"].shape[-1]
    block = FusionBlock(g["v"].shape[-1], text, width=width, heads=8)
    block.load_state_dict(w)
    return block


@pytest.mark.parametrize("mode", [nullcontext, reference_mode], ids=["folded", "reference"])
@pytest.mark.parametrize("case", ["L1", "L1_zero", "L7", "L9_pad4zeros"])
def test_golden_fusion(case, mode):
    g = load("fusion")
    block = fusion_block(g, case)
    with torch.inference_mode(), mode(block):
        v, t = block(g["v"], g[f"{case}.l"])
    close(v, g[f"{case}.v_out"])
    close(t, g[f"{case}.l_out"])


def test_golden_fusion_with_a_text_mask_in_the_reference_form():
    g = load("fusion")
    block, hidden = fusion_block(g, "masked"), g["masked.mask_true_means_ignored"].bool()
    with torch.inference_mode():
        v, t = block.layer_norm_v(g["v"]), block.layer_norm_l(g["masked.l"])
        dv, dt = reference.bi_attention(block.attn, v, t, hidden)
        close(v + block.gamma_v * dv, g["masked.v_out"])
        close(t + block.gamma_l * dt, g["masked.l_out"])


def test_golden_alignment():
    g = load("align")
    w = weights(g)
    align = Align(g["x"].shape[-1], g["embedding"].shape[-1])
    align.load_state_dict(w)
    with torch.inference_mode():
        close(align(g["x"], g["embedding"]), g["out"])
        # However large the states, a logit stays within the official limits.
        huge = align(g["x"] * 1e8, g["embedding"])
    assert huge.abs().max() == 50_000
    assert g["out_huge"].abs().max() <= 50_000


@pytest.mark.parametrize(("key", "threshold"), [("keep_07", 0.7), ("keep_09", 0.9)])
def test_golden_nms_by_group(key, threshold):
    g = load("nms")
    boxes, scores, ids = g["boxes"], g["scores"], g["ids"]
    assert torch.equal(nms_keep(boxes, scores, ids, threshold), g[key])
    keep = nms_grouped(boxes, scores, ids, int(ids.max()) + 1, threshold)
    assert keep.nonzero().squeeze(1).tolist() == sorted(g[key].tolist())


def test_golden_nms_of_one_group():
    g = load("nms")
    one = torch.zeros_like(g["ids"])
    assert torch.equal(nms_keep(g["boxes"], g["scores"], one, 0.5), g["keep_plain_05"])


def test_golden_sine_position():
    g = load("pos")
    ours = sine_position(g["mask"].bool(), g["pos"].shape[1])
    close(ours.permute(0, 3, 1, 2), g["pos"], 1e-5)


def test_golden_rope_and_absolute_positions():
    g = load("rope_abspos")
    side = round(g["cos"].shape[0] ** 0.5)
    cos, sin = rope_table(side, side, g["cos"].shape[1], 16)
    close(cos, g["cos"], 1e-6)
    close(sin, g["sin"], 1e-6)
    close(rotate(g["x"], cos, sin), g["out"], 1e-6)
    for key in (k for k in g if k.startswith("abs_pos_")):
        rows, cols = (int(s) for s in key.removeprefix("abs_pos_").split("x"))
        close(resize_positions(g["abs_pos"], (rows, cols)), g[key], 1e-5)


def test_golden_resize():
    g = load("resize")
    described = json.loads((golden_dir() / "unit_resize.json").read_text())
    for size, wanted in described["resize_shortest_edge_1024_1024"].items():
        height, width = map(int, size.split("x"))
        assert fitted_size((height, width), 1024) == tuple(wanted), size
    for key in (k for k in g if k.startswith("bgr")):
        wanted = g[f"resized_rgb{key[3:]}"]
        canvas = max(wanted.shape[:2])
        size = fitted_size(tuple(g[key].shape[:2]), canvas)
        rgb = resize_bytes(g[key].numpy(), size)[..., ::-1]
        assert torch.equal(torch.from_numpy(rgb.copy()), wanted)


def test_the_reference_sampler_and_the_operator_agree():
    torch.manual_seed(0)
    shapes = ((6, 5), (3, 3))
    value, places = torch.randn(2, 39, 4, 8), torch.rand(2, 7, 2, 4)
    offsets, logits = torch.randn(2, 7, 4, 2, 3, 2), torch.randn(2, 7, 4, 2, 3)
    plain = reference.deformable_sample(value, places, offsets, logits, shapes)
    fast = msda_fused(value, places, offsets, logits.flatten(-2), shapes)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
