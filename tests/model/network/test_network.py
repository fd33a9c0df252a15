"""The network on tiny random weights: canvases, independence of prompts, fast against plain."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ape_model.config import NANO, PRESETS, ApeConfig, VitConfig
from ape_model.inference.detect import PromptPass, find_regions
from ape_model.inference.preprocess import fitted_size, make_batch
from ape_model.inference.selection import select
from ape_model.network import deformable_attention, layers
from ape_model.network.align import Align
from ape_model.network.boxes import box_iou, inverse_sigmoid
from ape_model.network.geometry import Levels
from ape_model.network.layers import pointwise
from ape_model.network.nano_backbone import NanoBackbone, TokenRope
from ape_model.network.proposals import candidates_per_level
from ape_model.reference import modules as reference
from ape_model.reference.nms import nms_keep
from ape_model.reference.official_topk import classwise_keep
from ape_model.reference.patch import reference_mode
from ape_model.training.prompts.embedding_queue import EmbeddingQueue

VIT = VitConfig(32, 2, 2, window=3, window_blocks=(0,), pretrain_grid=4)
TINY = ApeConfig(
    "tiny",
    VIT,
    canvas=128,
    hidden=32,
    heads=4,
    points=2,
    ffn=48,
    encoder_layers=2,
    decoder_layers=2,
    queries=12,
    neck=True,
    fusion_width=32,
    fusion_heads=4,
    ambiguous_heads=1,
    text_width=24,
    pre_nms_topk=8,
    norm_groups=8,
)


@pytest.fixture
def model(shaken):
    return shaken(TINY)


def same(first, second):
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("words", [1, 5])
@pytest.mark.parametrize("step", [100, 10_000])  # many steps of tokens, or one
@pytest.mark.parametrize("cost", [0, 10_000])  # project what was sampled, or sample projections
def test_the_fast_form_computes_what_is_written(model, monkeypatch, words, step, cost):
    monkeypatch.setattr(layers, "CPU_CHUNK", step)
    monkeypatch.setattr(deformable_attention, "GATHER_COST", cost)
    model.double()
    images = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    prompts = model.sentences(torch.randn(words, 24, dtype=torch.float64))
    sizes = ((128, 90), (70, 128))
    with torch.inference_mode():
        fast = model(images, prompts, sizes)
        with reference_mode(model):
            plain = model(images, prompts, sizes)
    assert torch.equal(fast.proposals.tokens, plain.proposals.tokens)
    for name in ("memory", "text", "logits", "boxes", "mask_feature"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=1e-9, atol=1e-9)
    queries = torch.tensor([3, 0])
    with torch.inference_mode():
        wanted = reference.region_masks(model, plain, 1, queries)
        torch.testing.assert_close(model.region_masks(fast, 1, queries), wanted)


@pytest.mark.parametrize("canvas", [(128, 64), (64, 192)])
def test_any_canvas_will_do(model, canvas):
    with torch.inference_mode():
        outputs = model(torch.randn(1, 3, *canvas), model.vocabulary(torch.randn(3, 24)))
    assert outputs.logits.shape == (1, 12, 3)
    assert outputs.mask_feature.shape[-2:] == (canvas[0] // 4, canvas[1] // 4)
    assert outputs.logits.isfinite().all()


def test_one_more_name_changes_nothing_for_the_others(model):
    names = torch.randn(6, 24)
    with torch.inference_mode():
        features = model.encode_image(torch.randn(1, 3, 128, 128))
        few = model.head(features, model.vocabulary(names[:2]))
        many = model.head(features, model.vocabulary(names))
    assert torch.equal(few.proposals.tokens, many.proposals.tokens)
    same(few.logits, many.logits[..., :2])


def test_names_are_projected_once_and_score_the_same(model, monkeypatch):
    names = model.vocabulary(torch.randn(3, 24))
    unprojected = replace(names, vectors=None, biases=None)
    with torch.inference_mode():
        features = model.encode_image(torch.randn(2, 3, 128, 128))
        wanted = model.head(features, unprojected).logits
        monkeypatch.delattr(Align, "project")
        # From unit vectors in fixed point: they differ by what 24 numbers of float32 round.
        torch.testing.assert_close(model.head(features, names).logits, wanted, rtol=0, atol=1e-5)
    assert model.train().vocabulary(torch.randn(3, 24)).vectors is None


def test_the_backbone_runs_once_for_names_and_sentences(model):
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    with torch.inference_mode():
        features = model.encode_image(torch.randn(2, 3, 128, 128))
        given = [
            (model.vocabulary(torch.randn(2, 24)), torch.tensor([0, 2])),
            (model.sentences(torch.randn(1, 24)), torch.tensor([1])),
        ]
        every, none = (
            [
                PromptPass(
                    prompts,
                    ids,
                    torch.full((len(ids),), least),
                    torch.zeros(len(ids), dtype=torch.bool),
                )
                for prompts, ids in given
            ]
            for least in (0.0, 1.0)
        )
        heads = [model.head(features, prompts) for prompts, _ in given]
        found = find_regions(model, features, every, heads, per_prompt=4)
        nothing = find_regions(model, features, none, heads)
    assert len(runs) == 1
    for regions in found:
        assert regions.prompts.unique().tolist() == [0, 1, 2]
        assert regions.prompts.bincount().max() <= 4
        assert (regions.scores.diff() <= 0).all()
        assert regions.mask_logits.shape[1:] == (32, 32)
    assert [len(regions.scores) for regions in nothing] == [0, 0]


def greedy(boxes, scores, groups, threshold):
    """NMS as its definition reads, one box after another."""
    kept = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        rivals = [j for j in kept if groups[i] == groups[j]]
        if all(box_iou(boxes[[i]], boxes[[j]]).item() <= threshold for j in rivals):
            kept.append(i)
    return kept


def crowd(count):
    corner = torch.rand(count, 2)
    return torch.cat([corner, corner + 0.2 + torch.rand(count, 2) * 0.3], dim=1)


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_the_greedy_one(seed):
    torch.manual_seed(seed)
    boxes, groups = crowd(40), torch.randint(3, (40,))
    scores = torch.randint(10, (40,)).float()  # many ties
    kept = nms_keep(boxes, scores, groups, 0.3)
    assert kept.tolist() == greedy(boxes, scores, groups, 0.3)


@pytest.mark.parametrize("seed", range(4))
def test_suppression_by_prompt_is_the_greedy_one(seed):
    torch.manual_seed(seed)
    boxes, scores = crowd(20), torch.randint(6, (20, 5)).float() / 6
    candidates = scores > 0.2
    keep = classwise_keep(scores, boxes, candidates, 0.3)
    for prompt in range(5):
        some = candidates[:, prompt].nonzero().squeeze(1)
        one = torch.zeros(len(some))
        wanted = some[greedy(boxes[some], scores[some, prompt], one, 0.3)]
        assert keep[:, prompt].nonzero().squeeze(1).tolist() == sorted(wanted.tolist())


def test_thresholds_are_each_prompts_own():
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.1, 0.1]])
    logits = torch.tensor([[2.0, 2.0], [1.0, -3.0]])
    ((picked,),) = select([(logits[None], boxes[None], torch.tensor([0.5, 0.95]))], per_prompt=5)
    assert list(zip(picked.queries.tolist(), picked.prompts.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
    ]


def test_every_level_sends_its_best():
    levels = Levels(((2, 2), (1, 2)))
    scores = torch.tensor([0.0, 3.0, 1.0, 2.0, -5.0, -6.0])
    assert candidates_per_level(scores, levels, 2).tolist() == [1, 3, 4, 5]


def test_the_bank_remembers_the_newest_phrases():
    bank = EmbeddingQueue((3,), 1)
    first, second = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])
    assert bank.extend(first, 0).flatten().tolist() == [1, 2, 0]
    assert bank.extend(second, 0).flatten().tolist() == [3, 1, 2]


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (333, 1777), (7, 5)])
def test_frames_of_any_shape_fit_the_canvas(size):
    frame = np.full((*size, 3), 255, np.uint8)
    batch, (fitted,) = make_batch([frame], TINY)
    assert fitted == fitted_size(size, 128)
    assert max(fitted) == 128
    assert min(fitted) >= 1
    white = (255 - torch.tensor(TINY.pixel_mean)) / torch.tensor(TINY.pixel_std)
    torch.testing.assert_close(batch[0, :, 0, 0], white)
    assert (batch[0, :, fitted[0] :] == 0).all()
    assert (batch[0, :, :, fitted[1] :] == 0).all()


def test_inverse_sigmoid_stays_finite():
    ends = inverse_sigmoid(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([-6.9078, 0.0, 6.9078]), rtol=1e-4, atol=1e-4)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="cannot divide hidden width by heads"):
        replace(TINY, heads=5)


def test_presets_are_the_five_released_models():
    assert list(PRESETS)[:5] == ["A", "B", "C", "D", "Ti"]
    assert all(PRESETS[name].name == name for name in PRESETS)


def test_folded_norms_change_nothing():
    torch.manual_seed(0)
    plain = NanoBackbone(NANO).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(values, 0.5, 1.5)
    folded = copy.deepcopy(plain).fold_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before, after = plain(images), folded(images)
    torch.testing.assert_close(after.lateral, before.lateral, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.levels, before.levels, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_is_the_convolution_in_either_layout(layout):
    conv = nn.Conv2d(6, 5, 1)
    maps = torch.randn(2, 6, 3, 4).to(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(pointwise(conv, maps), conv(maps))


def test_a_token_turns_alike_in_every_grid():
    rope = TokenRope(8)
    states = torch.randn(1, 2, 5 * 7, 8)
    part = states.unflatten(2, (5, 7))[:, :, :3, :4].flatten(2, 3)
    turned = rope(states, (5, 7)).unflatten(2, (5, 7))[:, :, :3, :4].flatten(2, 3)
    assert torch.equal(rope(part, (3, 4)), turned)
    with pytest.raises(ValueError, match="over the rope's 64"):
        rope(torch.zeros(1, 2, 65, 8), (1, 65))
