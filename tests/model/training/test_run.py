"""A run of nano as a user meets it: recipes, resuming, faults, and a new word learnt."""

import json
import random

import cv2
import numpy as np
import pytest
import torch

from ape_model.config import NANO
from ape_model.loading import load_text_encoder
from ape_model.network.boxes import box_iou, corners
from ape_model.network.nano import build_nano
from ape_model.training.averaging import AveragedWeights
from ape_model.training.command import RECIPES
from ape_model.training.data.batch import collate
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.world_dataset import Canvas, Phase, WorldBatches, taking_turns
from ape_model.training.engine import Engine
from ape_model.training.errors import TrainingError
from ape_model.training.nano.config import LoopConfig
from ape_model.training.nano.learner import make_learner
from ape_model.training.progress import Progress, time_left
from ape_model.training.prompts.negatives import NegativeSampler
from ape_model.training.prompts.sampler import PromptingConfig, PromptSampler
from ape_model.training.rates import warm_up_and_cosine
from ape_model.training.train import TrainOptions, train
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import load_weights
from ape_model.world import Phrase, World
from ape_stream.datasets.coco import read_coco

TINY = (Phase(0, (Canvas(96, 96, 2, 3),), 0.5),)


@pytest.fixture(scope="module")
def encode():
    return load_text_encoder(find_model("nano"), torch.device("cpu"), torch.float32).encode


@pytest.fixture(scope="module")
def bank(encode):
    world = World()
    prompts = [p.text for p in world.prompts]
    return NegativeSampler(encode, prompts, torch.from_numpy(world.truth.copy()), ["lorry", "zxqv"])


def engine(bank, folder, **changes):
    """The loop on a new network."""
    torch.manual_seed(0)
    config = LoopConfig(**({"steps": 6, "workers": 0, "report_every": 2} | changes))
    prompt_sampler = PromptSampler(
        [PromptingConfig(bank, negative_words=96, memory=8, named=True)], width=128, seed=0
    )
    network = build_nano(NANO)
    average = AveragedWeights(network, config.ema)
    learner = make_learner(network, prompt_sampler, config, average)
    return Engine(learner, config, folder, lambda _: None)


def network_of(run):
    return run.learner.losses.network


def scenes(steps=6):
    return WorldBatches(TINY, seed=0, network=NANO, steps=steps)


def weights(run):
    return torch.cat([v.flatten().float() for v in network_of(run).state_dict().values()])


def test_a_killed_run_resumes_to_the_same_weights(bank, tmp_path):
    whole = engine(bank, tmp_path / "whole")
    whole.run(scenes())
    data, cut = scenes(), engine(bank, tmp_path / "cut")
    for step in range(3):
        cut.advance(data[step])
    cut.save()
    for step in range(3, 5):  # done, but lost with the process
        cut.advance(data[step])
    again = engine(bank, tmp_path / "cut")
    assert again.load()
    assert again.step == 3
    again.run(scenes())
    assert torch.equal(weights(again), weights(whole))
    averaged = again.learner.average.weights
    assert all(torch.equal(averaged[k], v) for k, v in whole.learner.average.weights.items())


def test_progress_is_logged_with_losses_and_counts(bank, tmp_path):
    engine(bank, tmp_path).run(scenes())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["images"] == 12
    assert all(np.isfinite(list(line.values())).all() for line in lines)


def test_a_state_holds_what_norms_have_seen(bank, tmp_path):
    run = engine(bank, tmp_path)
    run.advance(scenes()[0])
    run.save()
    seen = {k: v.clone() for k, v in network_of(run).state_dict().items() if "running_" in k}
    again = engine(bank, tmp_path)
    assert again.load()
    assert seen
    restored = network_of(again).state_dict()
    assert all(torch.equal(restored[k], v) for k, v in seen.items())


def test_a_nan_loss_ends_the_run_with_an_error(bank, tmp_path):
    broken = engine(bank, tmp_path)
    with torch.no_grad():
        network_of(broken).mask_head.mask_bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss is NaN or infinite at step 0"):
        broken.advance(scenes()[0])


def test_an_infinite_gradient_changes_no_weight(bank, tmp_path):
    broken = engine(bank, tmp_path)
    broken.backward(scenes()[0])
    network_of(broken).mask_head.mask_bias.grad.fill_(float("inf"))
    before = weights(broken)
    with pytest.raises(TrainingError, match="gradient is NaN or infinite at step 0"):
        broken.update()
    assert torch.equal(weights(broken), before)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a state"])
def test_a_damaged_state_is_named_in_one_line(bank, tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.pt is damaged") as caught:
        engine(bank, tmp_path).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["memory", "optimizer", "trained", "average", "counts"])
def test_a_state_of_another_run_is_refused_in_one_line(bank, tmp_path, key):
    kept = engine(bank, tmp_path)
    kept.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    if key == "memory":
        state[key] = [torch.zeros(3, 128)]
    elif key == "optimizer":
        state[key]["param_groups"] = state[key]["param_groups"][1:]
    else:
        state[key] = {}
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt is of another run .*: remove it") as caught:
        engine(bank, tmp_path).load()
    assert "\n" not in str(caught.value)


def test_a_state_of_the_former_loop_is_refused_with_what_to_do(bank, tmp_path):
    torch.save({"model": {}, "criterion": {}, "ema": {}}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"former version wrote it.*: remove it"):
        engine(bank, tmp_path).load()


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(bank, tmp_path):
    run_ = engine(bank, tmp_path, clip=0.5)
    run_.backward(scenes()[0])
    run_.learner.optimizer.zero_grad = lambda **_: None  # so that they can be read
    assert run_.update() > 0.5  # what it was
    gradients = [p.grad for p in network_of(run_).parameters() if p.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.5, rel=1e-3)


def test_a_line_of_progress_has_the_loss_of_a_batch_and_means_where_a_value_occurred():
    progress = Progress()
    progress.add({"mask": 1.0, "norm": 50.0})
    progress.add({"s/mask": 4.0})
    assert progress.take() == (2.5, {"mask": 1.0, "norm": 50.0, "s/mask": 4.0})
    progress.add({"mask": 3.0})
    assert progress.take() == (3.0, {"mask": 3.0})
    assert [time_left(s) for s in (7500.0, 431.0, 40.0)] == [
        "2 h 05 min left",
        "7 min left",
        "40 s left",
    ]


def test_averaged_weights_follow_slowly():
    network = torch.nn.Linear(1, 1)
    average = AveragedWeights(network, 0.5)
    before = average.weights["bias"].clone()
    with torch.no_grad():
        network.bias.fill_(8.0)
    average.update(20)  # past the first updates, whose average is faster
    torch.testing.assert_close(average.weights["bias"], (before + 8.0) / 2)
    average.update(1)
    assert average.weights["bias"] > 6.0


def test_a_part_written_state_never_replaces_the_last_one(bank, tmp_path, monkeypatch):
    kept = engine(bank, tmp_path)
    kept.save()
    before = (tmp_path / "state.pt").read_bytes()

    def full_disk(_state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        kept.save()
    assert (tmp_path / "state.pt").read_bytes() == before


def test_the_learning_rate_warms_up_holds_and_falls_to_nothing():
    rates = [warm_up_and_cosine(k, 100, 10, 0.5, peak=2.0) for k in (0, 10, 50, 75, 100)]
    assert rates == pytest.approx([0.2, 2.0, 2.0, 1.0, 0.0])


def test_validations_keep_their_distance_and_the_last_one_is_always_made(bank, tmp_path):
    run = engine(bank, tmp_path, save_every_s=0.0, validate_every=4)
    judged = []
    run.run(scenes(), lambda done: judged.append(done.step))
    assert judged == [4, 6]


def test_a_head_that_exists_in_training_alone_learns_first(bank, tmp_path):
    run = engine(bank, tmp_path, heads_first=1, warm_up=10**9)
    before, head = weights(run), run.learner.losses.criterion.token_align.bias_lang.detach().clone()
    run.advance(WorldBatches((Phase(0, TINY[0].canvases),), seed=0, network=NANO, steps=1)[0])
    assert not torch.equal(run.learner.losses.criterion.token_align.bias_lang, head)
    moved = (weights(run) - before).abs()
    statistics = sum(v.numel() for k, v in network_of(run).state_dict().items() if "running" in k)
    assert int((moved > 1e-8).sum()) <= statistics + 10  # batch norms follow what they see


def test_early_layers_learn_more_slowly_where_asked(bank, tmp_path):
    run_ = engine(bank, tmp_path, layer_decay=0.5)
    scales = {
        id(p): group["base"]
        for group in run_.learner.optimizer.param_groups
        for p in group["params"]
    }
    named = {name: scales[id(p)] for name, p in run_.learner.trained.items()}
    assert named["backbone.stem4.0.0.weight"] == 0.5**5
    assert named["backbone.blocks.3.norm1.weight"] == 0.5
    assert named["mask_head.mask_bias"] == named["criterion.token_align.log_scale"] == 1.0


@pytest.mark.parametrize(("share", "moved"), [(0.0, True), (1.0, False)])
def test_sentences_train_what_stands_on_the_backbone(bank, tmp_path, share, moved):
    phases = (Phase(0, (Canvas(96, 96, 1, 3),), share),)
    run = engine(bank, tmp_path, weight_decay=0.0)
    before = {k: v.detach().clone() for k, v in network_of(run).named_parameters()}
    run.advance(WorldBatches(phases, seed=0, network=NANO, steps=1)[0])
    after = dict(network_of(run).named_parameters())
    eyes = [k for k in before if k.startswith("backbone.")]
    assert any(not torch.equal(before[k], after[k]) for k in eyes) is moved
    assert any(not torch.equal(before[k], after[k]) for k in before if k not in eyes)


def test_relations_take_turns_in_what_is_prompted():
    phrases = [Phrase(str(k), k, (), "extreme") for k in range(4)]
    phrases += [
        Phrase("on", 4, (), "on"),
        Phrase("big", 5, (), "size"),
        Phrase("small", 6, (), "size"),
    ]
    relations = [p.relation for p in taking_turns(phrases, random.Random(3))]
    assert [set(relations[:3]), sorted(relations[3:5]), relations[5:]] == [
        {"extreme", "on", "size"},
        ["extreme", "size"],
        ["extreme", "extreme"],
    ]


def test_strange_words_that_are_near_a_prompt_are_no_negatives(encode):
    known = NegativeSampler(
        encode, ["dog"], torch.ones(1, 1, dtype=torch.bool), ["dogs", "railway"]
    )
    assert len(known.negative_words) == 1
    vectors, truth = known.draw(torch.tensor([[0]]), 8, torch.Generator().manual_seed(0))
    assert vectors.shape[0] == 2
    assert truth.tolist() == [[[1.0, 0.0]]]


def test_batches_of_the_world_are_a_function_of_seed_and_step():
    one, other = scenes()[4], scenes()[4]
    assert one.images.equal(other.images)
    assert one.sentences == other.sentences
    assert not scenes()[4].images.equal(scenes()[5].images)


def test_processes_draw_the_same_kind_of_batch_but_other_scenes():
    first = WorldBatches(TINY, seed=0, network=NANO, steps=6)
    second = WorldBatches(TINY, seed=0, network=NANO, steps=6, rank=1)
    for step in range(6):
        assert any(first[step].sentences) == any(second[step].sentences)
    assert not first[0].images.equal(second[0].images)


def draw_gizmos(folder, count):
    """Images of a thing no drawn world has: a white ring with a black bar on noise."""
    rng = random.Random(1)
    folder.mkdir()
    images, annotations = [], []
    for k in range(count):
        noise = np.random.default_rng(k).integers(60, 140, (128, 128, 3), np.uint8)
        image = cv2.GaussianBlur(noise, (0, 0), 3)
        x, y, r = rng.randint(36, 92), rng.randint(36, 92), rng.randint(18, 30)
        cv2.circle(image, (x, y), r, (255, 255, 255), -1)
        cv2.circle(image, (x, y), r // 2, (200, 0, 200), -1)
        cv2.rectangle(image, (x - r // 2, y - 3), (x + r // 2, y + 3), (0, 0, 0), -1)
        cv2.imwrite(str(folder / f"{k}.png"), image)
        ring = cv2.ellipse2Poly((x, y), (r, r), 0, 0, 360, 10)
        images.append({"id": k, "file_name": f"{k}.png", "height": 128, "width": 128})
        annotations.append(
            {
                "image_id": k,
                "category_id": 1,
                "bbox": [x - r, y - r, 2 * r, 2 * r],
                "segmentation": [ring.flatten().tolist()],
            }
        )
    categories = [{"id": 1, "name": "gizmo"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "data.json").write_text(json.dumps(table))
    return folder / "data.json"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fine_tuned_nano_finds_the_new_word(tmp_path, encode):
    data = draw_gizmos(tmp_path / "seen", 12)
    recipe = tmp_path / "recipe.toml"
    text = (RECIPES / "finetune.toml").read_text()
    text = text.replace("batch = 8", "height = 128, width = 128, batch = 4")
    recipe.write_text(text.replace("held_back = 0.1", ""))
    options = TrainOptions(recipe, tmp_path / "out", data, init="nano", steps=80, device="cpu")
    tuned = build_nano(NANO)
    load_weights(tuned, train(options, lambda _: None))
    unseen = read_coco(draw_gizmos(tmp_path / "unseen", 20))
    batches = CocoBatches(unseen, (), seed=0, network=NANO, steps=1)
    found = 0
    tuned.eval()
    for k in range(14, 20):  # other places and sizes than the twelve it has seen
        example = batches.plain(k, 128)
        with torch.no_grad():
            images = collate([example], NANO).images
            outputs = tuned(images, tuned.vocabulary(encode(["gizmo"])))
        best = outputs.logits[0, :, 0].argmax()
        box = corners(outputs.boxes[0, best][None]) * 128
        sure = outputs.logits[0, best, 0].sigmoid() > 0.4
        found += int(sure and box_iou(box, torch.from_numpy(example.boxes)).item() > 0.5)
    assert found >= 5
