"""Run by torchrun: two processes that train together, compared with one that does their work."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed

from ape_model.config import NANO, PRESETS
from ape_model.loading import load_text_encoder
from ape_model.network.ape import Ape
from ape_model.network.nano import build_nano
from ape_model.training.averaging import AveragedWeights
from ape_model.training.command import RECIPES
from ape_model.training.data.world_dataset import Canvas, Phase, WorldBatches
from ape_model.training.engine import Engine
from ape_model.training.nano.config import LoopConfig
from ape_model.training.nano.learner import make_learner
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.check import encode_at_random, shrunk_config, shrunk_recipe
from ape_model.training.official.miniature import write_miniature_data
from ape_model.training.official.recipe import read_official_recipe
from ape_model.training.official.records import read_row
from ape_model.training.official.run import build_run
from ape_model.training.prompts.negatives import NegativeSampler
from ape_model.training.prompts.sampler import PromptingConfig, PromptSampler
from ape_model.weights.registry import find_model

STEPS = 3
STAGES = (Phase(0, (Canvas(96, 96, 1, 3),), 0.7),)  # sentences too: they fill the memory


def encode(texts):
    """The shipped tower's vectors."""
    tower = load_text_encoder(find_model("nano"), torch.device("cpu"), torch.float32)
    return tower.encode(texts)


def engine(folder):
    """A loop that begins as all others do."""
    truth = torch.eye(169, dtype=torch.bool)
    names = [f"thing {chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(169)]
    bank = NegativeSampler(encode, names, truth, [])
    torch.manual_seed(0)
    prompt_sampler = PromptSampler([PromptingConfig(bank, memory=6)], width=128, seed=0)
    network, config = build_nano(NANO), LoopConfig(STEPS, warm_up=0)
    average = AveragedWeights(network, config.ema)
    learner = make_learner(network, prompt_sampler, config, average)
    return Engine(learner, config, folder, lambda _: None)


def weights(network):
    """All that is learnt, as one vector; running means of a norm are each process's own."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def alone(folder):
    """Do both processes' work in one: average the gradients of both batches by hand."""
    run = engine(folder)
    data = [WorldBatches(STAGES, seed=0, network=NANO, steps=STEPS, rank=r) for r in range(2)]
    parameters, sampler = list(run.learner.trained.values()), run.learner.memory
    queued = []
    for step in range(STEPS):
        queued.clear()
        summed = torch.zeros(sum(p.numel() for p in parameters))
        before = sampler.state()
        for part in data:
            sampler.load(before)  # both processes see what was remembered before the step
            sampler._enqueue = lambda new, _: queued.append(new)
            run.learner.optimizer.zero_grad()
            run.backward(part[step])
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            summed += torch.cat([gradient.flatten() for gradient in own])
        del sampler._enqueue
        sampler._enqueue(torch.cat(queued), 0)
        # Parts of one long vector, as after the exchange: sums follow how numbers lie.
        parts = (summed / 2).split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p)
        run.update()
        run.step += 1
        run.images += 2
    return run


def official(folder, rank):
    """The tiny form of an official recipe: each process has other images, all the same weights."""
    whole = read_official_recipe(RECIPES / "ape_B.toml")
    recipe = shrunk_recipe(replace(whole, data=whole.data[4:5]), STEPS)
    assert recipe.compress
    write_miniature_data(recipe, folder / f"data {rank}")
    rows = [read_row(row, folder / f"data {rank}") for row in recipe.data]
    config = shrunk_config(PRESETS["B"])
    torch.manual_seed(0)
    network = Ape(config)
    before = weights(network)
    encode_names = encode_at_random(config.text_width)
    run = build_run(recipe, rows, network, encode_names, folder / "official", lambda _: None)
    data = OfficialBatches(recipe, rows, config, rank=rank, processes=2)
    losses = [sum(run.engine.advance(data[step]).values()) for step in range(STEPS)]
    found = [None, None]
    distributed.all_gather_object(found, (losses, weights(network)))
    (first, own), (second, other) = found
    assert first != second, "both processes had the same images"
    assert torch.equal(own, other), "weights differ between processes"
    assert not torch.equal(own, before)


def main(folder):
    """Compare, and write what was found: every process must agree with all others."""
    expected = alone(folder / "alone")  # before the processes know of each other
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    run = engine(folder / "both")
    data = WorldBatches(STAGES, seed=0, network=NANO, steps=STEPS, rank=rank)
    for step in range(STEPS):
        run.advance(data[step])
    assert run.images == expected.images == 2 * STEPS
    assert run.learner.memory.state()[0].any(1).sum() > 2
    assert torch.equal(run.learner.memory.state()[0], expected.learner.memory.state()[0]), (
        "memories differ"
    )
    far = max(
        (p - expected.learner.trained[name]).abs().max() for name, p in run.learner.trained.items()
    )
    assert far == 0, f"weights differ by {far}"
    official(folder, rank)
    (folder / f"agreed.{rank}").write_text("yes")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
