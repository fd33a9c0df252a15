import asyncio

import pytest

from ape_nodes.web.prompts import MAX_PROMPTS, ConflictError, PromptList
from ape_nodes.web.protocol import PromptOp
from ape_stream.errors import PipelineError, PromptError, UsageError
from ape_stream.types import PromptSet


class Model:
    """Takes prompts like a run; texts that begin with `bad` are refused."""

    def __init__(self):
        self.given = []

    async def take(self, prompts):
        await asyncio.sleep(0)
        for text in prompts.texts:
            if text.startswith("bad"):
                raise PromptError(f"{text!r} cannot be used")
            if text == "over":
                raise PipelineError("the run is over")
        self.given.append(prompts.texts)
        return prompts


def listed(prompts="red apple, fox", locked=()):
    model = Model()
    changes = []
    edited = PromptList(PromptSet.of(prompts), model.take, lambda: changes.append(1), locked)
    return edited, model, changes


def by_text(edited):
    return {prompt["text"]: prompt for prompt in edited.state()["prompts"]}


def add(*texts):
    return [PromptOp("add", text=text) for text in texts]


def test_of_two_edits_from_one_revision_the_second_is_refused():
    edited, _, _ = listed()
    edited.edit(add("star"), 1)
    with pytest.raises(ConflictError):
        edited.edit(add("moon"), 1)
    assert list(by_text(edited)) == ["red apple", "fox", "star"]
    assert edited.rev == 2
    edited.edit(add("moon"), None)
    assert edited.rev == 3


def test_an_edit_is_all_or_nothing():
    edited, _, changes = listed()
    before = edited.state()
    with pytest.raises(UsageError, match="there already"):
        edited.edit(add("star", "fox"), 1)
    assert edited.state() == before
    assert changes == []


@pytest.mark.parametrize(
    "op",
    [
        PromptOp("add", text=" "),
        PromptOp("add", text="x" * 201),
        PromptOp("add", text="x", color="red"),
        PromptOp("add", text="x", color="#12345g"),
        PromptOp("add", text="x", threshold=1.5),
        PromptOp("remove", prompt=99),
        PromptOp("rename", prompt=1, text=""),
        PromptOp("rename", prompt=1, text="fox"),
        PromptOp("replace", prompts=({"text": "a", "path": "/"},)),
        PromptOp("replace", prompts=tuple({"text": str(k)} for k in range(MAX_PROMPTS + 1))),
    ],
    ids=lambda op: f"{op.op}-{op.text or op.prompt}"[:30],
)
def test_what_cannot_be_done_is_refused(op):
    edited, _, _ = listed()
    with pytest.raises(UsageError):
        edited.edit([op], 1)
    assert edited.rev == 1


def test_a_prompt_that_the_model_refuses_is_marked_and_the_others_are_used():
    async def main():
        edited, model, _ = listed()
        edited.edit(add("bad one", "star", "bad two"), 1)
        assert by_text(edited)["star"]["state"] == "encoding"
        await edited.apply()
        return by_text(edited), model.given[-1]

    prompts, given = asyncio.run(main())
    assert given == ("red apple", "fox", "star")
    assert prompts["star"]["state"] == "on"
    assert prompts["star"]["encode_ms"] is not None
    assert prompts["bad one"]["state"] == prompts["bad two"]["state"] == "error"
    assert prompts["bad one"]["reason"] == "'bad one' cannot be used"


def test_ids_of_what_stays_survive_every_edit():
    async def main():
        edited, model, _ = listed()
        apple = by_text(edited)["red apple"]["id"]
        fox = by_text(edited)["fox"]["id"]
        edited.edit([PromptOp("replace", prompts=({"text": "star"}, {"text": "fox"}))], 1)
        edited.edit([PromptOp("rename", prompt=by_text(edited)["star"]["id"], text="red apple")], 2)
        await edited.apply()
        return by_text(edited), apple, fox, model.given

    prompts, apple, fox, given = asyncio.run(main())
    assert prompts["fox"]["id"] == fox
    assert prompts["red apple"]["id"] not in (apple, fox)  # it was gone: another one now
    assert given == [("red apple", "fox")]


def test_a_disabled_prompt_is_kept_and_not_looked_for():
    async def main():
        edited, model, _ = listed()
        fox = by_text(edited)["fox"]["id"]
        edited.edit([PromptOp("enable", prompt=fox, enabled=False)], 1)
        await edited.apply()
        assert model.given[-1] == ("red apple",)
        edited.edit([PromptOp("enable", prompt=1, enabled=False)], 2)
        await edited.apply()
        assert not edited.any_enabled
        assert model.given[-1] == ("red apple",)  # a model needs one
        edited.edit([PromptOp("enable", prompt=fox, enabled=True)], 3)
        await edited.apply()
        return by_text(edited), fox, model.given[-1]

    prompts, fox, given = asyncio.run(main())
    assert given == ("fox",)
    assert prompts["fox"]["id"] == fox
    assert prompts["red apple"]["state"] == "off"


def test_revisions_lead_from_results_to_edits():
    async def main():
        edited, _, _ = listed()
        edited.edit(add("star"), 1)
        assert edited.rev_of(PromptSet.of("red apple, fox")) == 1
        assert edited.rev_of(PromptSet.of("red apple, fox, star")) is None
        await edited.apply()
        assert edited.rev_of(PromptSet.of("red apple, fox, star")) == 2
        return edited.id_of("star"), by_text(edited)["star"]["id"], edited.id_of("moon")

    star, listed_id, moon = asyncio.run(main())
    assert star == listed_id
    assert moon == 0


def test_after_many_edits_the_last_ones_are_known_and_the_first_are_forgotten():
    """A result may still be of the prompts before the last edit; memory stays as it is."""

    async def main():
        edited, _, _ = listed()
        first = PromptSet.of("red apple, fox")

        async def put(*texts):
            rows = tuple({"text": text} for text in texts)
            edited.edit([PromptOp("replace", prompts=rows)], edited.rev)
            await edited.apply()
            return len(edited._ids), len(edited._revs)

        sizes = [await put(f"thing {k}", f"other {k}") for k in range(300)]
        await put("thing 240", "other 240")  # known already, and now the newest
        for k in range(60):
            await put(f"new {k}")
        again = PromptSet.of("thing 240, other 240")
        return sizes, edited.rev_of(first), edited.rev_of(again), edited.id_of("other 240")

    sizes, first, again, known = asyncio.run(main())
    assert len(set(sizes[150:])) == 1
    assert first is None
    assert again == 302
    assert known > 0


def test_prompts_of_another_editor_are_taken_over():
    edited, _, changes = listed()
    fox = by_text(edited)["fox"]["id"]
    edited.adopt(PromptSet.of("red apple, fox"))
    assert changes == []
    edited.adopt(PromptSet.of("moon, fox"))
    assert list(by_text(edited)) == ["moon", "fox"]
    assert by_text(edited)["fox"]["id"] == fox
    assert (edited.rev, changes) == (2, [1])
    with pytest.raises(ConflictError):
        edited.edit(add("star"), 1)


@pytest.mark.parametrize(
    "op",
    [
        PromptOp("remove", prompt=2),
        PromptOp("enable", prompt=2, enabled=False),
        PromptOp("threshold", prompt=2, threshold=1.0),
        PromptOp("rename", prompt=2, text="x"),
    ],
    ids=lambda op: f"{op.op}-{op.text or op.prompt}"[:30],
)
def test_what_is_blurred_must_go_on_being_looked_for(op):
    edited, _, _ = listed(locked=["fox"])
    with pytest.raises(UsageError, match="blurred"):
        edited.edit([op], 1)
    edited.edit(
        [PromptOp("replace", prompts=({"text": "star"}, {"text": "fox", "enabled": False}))], 1
    )
    assert by_text(edited)["fox"]["enabled"]


def test_the_end_of_the_run_is_an_error_of_apply():
    async def main():
        edited, _, _ = listed()
        edited.edit(add("over"), 1)
        with pytest.raises(PipelineError):
            await edited.apply()

    asyncio.run(main())
