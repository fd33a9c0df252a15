"""What a step asks for, worked by hand with an encoder whose vectors are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ape_model.config import NANO
from ape_model.network.nano import build_nano
from ape_model.training.data.batch import Example, collate
from ape_model.training.data.mixture import MixedBatches
from ape_model.training.losses.criterion import choose_region
from ape_model.training.prompts.embedding_queue import EmbeddingQueue
from ape_model.training.prompts.federated import draw_classes
from ape_model.training.prompts.negatives import NegativeSampler
from ape_model.training.prompts.sampler import PromptingConfig, PromptSampler, merge_near

WIDTH = 128
WORDS = [
    "dog",
    "cat",
    "car",
    "hound",
    "red car",
    "blue car",
    "old dog",
    "grass",
    "kite",
    "automobile",
]


def encode(texts):
    """One axis for each word, so that different words have a cosine of 0."""
    return torch.eye(WIDTH)[[WORDS.index(t) for t in texts]]


def near_encode(texts):
    """As `encode`, but automobile is nearly car (cosine .96)."""
    vectors = encode(texts)
    for row, text in enumerate(texts):
        if text == "automobile":
            vectors[row] = 0.96 * encode(["car"])[0] + 0.28 * vectors[row]
    return vectors


def batch_of(*images, dataset=0):
    """Images of (classes, sentences) on 32 x 32 pixels."""
    examples = [
        Example(
            image=np.zeros((32, 32, 3), np.uint8),
            ids=np.zeros((32, 32), np.int32),
            boxes=np.tile(np.array([[0, 0, 8, 8]], np.float32), (len(classes), 1)),
            classes=np.array(classes, np.int64),
            sentences=tuple(sentences),
        )
        for classes, sentences in images
    ]
    return replace(collate(examples, NANO), dataset=dataset)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_nano(NANO)


def names(encode=encode, negative_words=()):
    """Dog (also hound), cat, car."""
    truth = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.bool)
    return NegativeSampler(encode, ["dog", "cat", "car", "hound"], truth, list(negative_words))


def seed(value=0):
    return torch.Generator().manual_seed(value)


def rows(vectors):
    """The words that vectors stand for."""
    return [WORDS[k] for k in vectors.argmax(-1).tolist()]


# --- federated loss ---------------------------------------------------------------------------


def test_all_classes_of_the_batch_are_drawn_and_others_up_to_the_count():
    frequencies = torch.ones(100)
    for k in range(20):
        chosen = draw_classes(torch.tensor([7, 3, 7, 90]), frequencies, 50, seed(k))
        assert len(chosen) == len(chosen.unique()) == 50
        assert {3, 7, 90} <= set(chosen.tolist())
        assert chosen.equal(chosen.sort().values)


def test_a_batch_that_shows_more_than_the_count_asks_for_all_it_shows():
    assert draw_classes(torch.arange(5), torch.ones(9), 3, seed()).tolist() == [0, 1, 2, 3, 4]


def test_a_class_that_never_occurs_is_never_a_negative():
    chosen = draw_classes(torch.tensor([0]), torch.tensor([5, 0, 5, 0]), 4, seed())
    assert chosen.tolist() == [0, 2]


def test_negatives_are_drawn_by_the_square_root_of_their_frequency():
    # Class 0 is shown; one more of two whose frequencies are 1 and 9: weights 1 and 3.
    frequencies = torch.tensor([50, 1, 9])
    drawn = [draw_classes(torch.tensor([0]), frequencies, 2, seed(k))[1].item() for k in range(800)]
    assert drawn.count(2) / 800 == pytest.approx(0.75, abs=0.05)


def test_a_federated_step_asks_for_the_chosen_names_and_numbers_classes_by_them(model):
    prompting = PromptingConfig(names(), federated=2, frequencies=torch.tensor([1, 0, 4]))
    # Cat (1) never occurs elsewhere, so that dog and car make up the two.
    sampled = PromptSampler([prompting], width=WIDTH, seed=0)(
        model, batch_of(([2, 0], ()), ([2], ())), 0
    )
    assert rows(sampled.prompts.classes[0]) == ["dog", "car", "hound"]
    assert rows(sampled.targets.names) == ["dog", "car"]
    assert sampled.targets.classes[0].tolist() == [1, 0]
    assert sampled.targets.classes[1, 0].item() == 1
    # Region 0 of image 0 is a car, region 1 a dog and a hound.
    assert sampled.targets.truth[0].tolist() == [[0, 1, 0], [1, 0, 1]]


def test_without_federation_every_step_has_all_names(model):
    prompt_sampler = PromptSampler(
        [PromptingConfig(names(negative_words=["kite", "grass"]), negative_words=1)],
        width=WIDTH,
        seed=0,
    )
    others = set()
    for step in range(8):
        sampled = prompt_sampler(model, batch_of(([1], ())), step)
        assert rows(sampled.prompts.classes[0])[:4] == ["dog", "cat", "car", "hound"]
        others |= set(rows(sampled.prompts.classes[0])[4:])
        assert sampled.targets.truth.tolist() == [[[0, 1, 0, 0, 0]]]
        assert sampled.trains_backbone
    assert others == {"kite", "grass"}


# --- phrases and expressions ------------------------------------------------------------------

TALK = (([0, 1], [("Old dog", 0), ("grass", 1)]), ([2], [("red car", 0), ("old dog", 0)]))


def test_phrases_hold_for_all_images_of_the_batch(model):
    prompt_sampler = PromptSampler([PromptingConfig(names(), shared=True)], width=WIDTH, seed=0)
    sampled = prompt_sampler(model, batch_of(*TALK), 0)
    assert rows(sampled.prompts.fusion[0]) == ["old dog", "grass", "red car"]
    assert sampled.prompts.classes is None  # aligned in their fused form
    assert sampled.targets.truth[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert sampled.targets.truth[1, 0].tolist() == [1, 0, 1]
    assert not sampled.targets.single
    assert sampled.trains_backbone


def test_near_phrases_are_one_and_true_of_both_regions(model):
    prompt_sampler = PromptSampler(
        [PromptingConfig(names(near_encode), shared=True)], width=WIDTH, seed=0
    )
    batch = batch_of(([2], [("car", 0)]), ([2, 0], [("automobile", 0), ("dog", 1)]))
    sampled = prompt_sampler(model, batch, 0)
    assert rows(sampled.prompts.fusion[0]) == ["car", "dog"]
    assert sampled.targets.truth.tolist() == [[[1, 0], [0, 0]], [[1, 0], [0, 1]]]


def test_merging_keeps_the_first_of_each_kind():
    near = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.96, 0.28], [0.6, 0.8]])
    assert merge_near(near, 0.9) == ([0, 1, 3], [0, 1, 0, 2])


def test_expressions_are_each_images_own(model):
    prompt_sampler = PromptSampler([PromptingConfig(names())], width=WIDTH, seed=0)
    sampled = prompt_sampler(model, batch_of(TALK[0], ([2], [("red car", 0)])), 0)
    assert [rows(v) for v in sampled.prompts.fusion] == [
        ["old dog", "grass"],
        ["red car", "red car"],
    ]
    assert sampled.targets.truth.tolist() == [[[1, 0], [0, 1]], [[1, 1], [0, 0]]]
    assert sampled.targets.single
    assert sampled.targets.names is None


def test_a_batch_that_says_nothing_gets_names(model):
    prompt_sampler = PromptSampler(
        [PromptingConfig(names(), shared=True, memory=4)], width=WIDTH, seed=0
    )
    sampled = prompt_sampler(model, batch_of(([1], ())), 0)
    assert rows(sampled.prompts.classes[0]) == ["dog", "cat", "car", "hound"]


# --- the embedding bank of negatives ----------------------------------------------------------


def phrase_step(prompt_sampler, model, *texts, dataset=0):
    batch = batch_of(([0], [(text, 0) for text in texts]), dataset=dataset)
    sampled = prompt_sampler(model, batch, 0)
    return rows(sampled.prompts.fusion[0]), sampled.targets.truth[0, 0].tolist()


def test_earlier_phrases_are_negatives_the_newest_first_and_the_oldest_forgotten(model):
    prompt_sampler = PromptSampler(
        [PromptingConfig(names(), shared=True, memory=3)], width=WIDTH, seed=0
    )
    assert phrase_step(prompt_sampler, model, "dog") == (["dog"], [1])
    assert phrase_step(prompt_sampler, model, "cat", "kite") == (["cat", "kite", "dog"], [1, 1, 0])
    assert phrase_step(prompt_sampler, model, "grass") == (
        ["grass", "kite", "cat", "dog"],
        [1, 0, 0, 0],
    )
    assert phrase_step(prompt_sampler, model, "car") == (
        ["car", "grass", "kite", "cat"],
        [1, 0, 0, 0],
    )


def test_what_is_prompted_again_is_no_negative_and_takes_no_second_place(model):
    prompt_sampler = PromptSampler(
        [PromptingConfig(names(near_encode), shared=True, memory=2)], width=WIDTH, seed=0
    )
    phrase_step(prompt_sampler, model, "automobile", "dog")
    assert phrase_step(prompt_sampler, model, "car") == (["car", "dog"], [1, 0])
    assert phrase_step(prompt_sampler, model, "kite") == (["kite", "dog", "car"], [1, 0, 0])


def test_every_data_set_remembers_its_own(model):
    prompting = PromptingConfig(names(), shared=True, memory=4)
    prompt_sampler = PromptSampler([prompting, prompting], width=WIDTH, seed=0)
    phrase_step(prompt_sampler, model, "dog", dataset=0)
    assert phrase_step(prompt_sampler, model, "cat", dataset=1) == (["cat"], [1])
    assert phrase_step(prompt_sampler, model, "car", dataset=0) == (["car", "dog"], [1, 0])


def test_remembered_expressions_are_negatives_of_every_image(model):
    prompt_sampler = PromptSampler([PromptingConfig(names(), memory=4)], width=WIDTH, seed=0)
    prompt_sampler(model, batch_of(([0], [("kite", 0)])), 0)
    sampled = prompt_sampler(model, batch_of(([0], [("dog", 0)]), ([1], [("cat", 0)])), 1)
    assert [rows(v) for v in sampled.prompts.fusion] == [["dog", "kite"], ["cat", "kite"]]
    assert sampled.targets.truth.tolist() == [[[1, 0]], [[1, 0]]]


def test_a_bank_that_was_saved_goes_on_as_if_nothing_had_happened(model):
    prompting = PromptingConfig(names(), shared=True, memory=3)
    first, second = (PromptSampler([prompting], width=WIDTH, seed=0) for _ in range(2))
    phrase_step(first, model, "dog", "cat")
    second.load(first.state())
    phrase_step(first, model, "kite")  # lost with the process
    assert phrase_step(second, model, "car") == (["car", "cat", "dog"], [1, 0, 0])


def test_a_bank_of_other_data_sets_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        EmbeddingQueue((3, 2), WIDTH).load(EmbeddingQueue((3,), WIDTH).state())


def test_a_negative_or_a_stuff_in_parts_is_not_chosen_between():
    logits, best = torch.zeros(1, 2, 3), torch.tensor([[0, 1]])
    logits[0, 0, 0] = 1.0
    # Column 0 means region 0, column 1 nothing, column 2 both regions.
    truth = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])
    valid = torch.tensor([[True, True]])
    expected = torch.nn.functional.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    torch.testing.assert_close(choose_region(logits, best, valid, truth), expected)
    nothing = choose_region(logits, best, valid, torch.zeros(1, 2, 3))
    assert nothing.item() == 0


# --- several data sets ------------------------------------------------------------------------


class Steps(torch.utils.data.Dataset):
    """Batches that know who made them."""

    def __init__(self, name):
        self.name = name

    def __getitem__(self, step):
        return batch_of(([self.name], ()))


def test_data_sets_are_drawn_by_their_ratios_and_marked():
    mix = MixedBatches([Steps(0), Steps(1), Steps(2)], [2.0, 1.0, 1.0], seed=5)
    drawn = [mix.which(step) for step in range(4000)]
    assert [drawn.count(k) / 4000 for k in range(3)] == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    for step in range(10):
        batch = mix[step]
        assert batch.dataset == drawn[step] == batch.classes.item()


def test_which_data_set_a_step_draws_follows_from_the_seed():
    first, again, other = (
        [MixedBatches([0, 1], [1, 1], seed=s).which(k) for k in range(50)] for s in (5, 5, 6)
    )
    assert first == again
    assert first != other
