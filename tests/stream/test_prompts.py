"""A prompt's table has one parser, whoever sends it."""

import pytest

from ape_stream.errors import PromptError
from ape_stream.types import Prompt, PromptKind, PromptSet


def test_a_table_says_all_of_a_prompt():
    table = {"text": " a  sky ", "kind": "sentence", "stuff": True, "threshold": 1}
    assert Prompt.from_dict(table) == Prompt("a sky", PromptKind.SENTENCE, True, 1.0)
    assert Prompt.from_dict("cup") == Prompt.from_dict({"text": "cup"}) == Prompt("cup")
    absent = {"text": "cup", "kind": None, "threshold": None}
    assert Prompt.from_dict(absent) == Prompt("cup")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"text": "a", "kid": 1}, "unknown key 'kid' in a prompt; it has: text, kind, stuff, thr"),
        ({"stuff": True}, "a prompt needs 'text'"),
        ({"text": 3}, "'text' in a prompt must be a text, got 3"),
        ({"text": "a", "kind": "word"}, "'kind' in a prompt must be one of 'vocabulary', 'sente"),
        ({"text": "a", "stuff": "yes"}, "'stuff' in a prompt must be true or false, got 'yes'"),
        ({"text": "a", "threshold": "x"}, "'threshold' in a prompt must be a number, got 'x'"),
        ({"text": "a", "threshold": True}, "'threshold' in a prompt must be a number, got True"),
        ({"text": "a", "threshold": 2}, "threshold of 'a' is 2.0, not within 0..1"),
        ({"text": "a", "threshold": float("nan")}, "threshold of 'a' is nan"),
        ({"text": " "}, "a prompt is empty"),
        (
            {"text": "\udcf0 cat"},
            r"prompt .* is not UTF-8: on a command line, set a locale that is",
        ),
        (3, "a prompt must be a text or a table, got 3"),
    ],
)
def test_a_wrong_table_is_one_line_that_helps(table, says):
    with pytest.raises(PromptError, match=f"^{says}"):
        Prompt.from_dict(table)


def test_a_set_takes_texts_prompts_and_tables():
    mixed = PromptSet.of(["a, b", Prompt("c"), {"text": "d", "stuff": True}, "c"])
    assert mixed.texts == ("a, b", "c", "d")
    assert mixed[2].stuff


def test_one_prompt_needs_no_list():
    assert PromptSet.of(Prompt("a, b")).texts == ("a, b",)


@pytest.mark.parametrize("given", [3, None, {"text": "a"}, b"a"])
def test_a_set_is_a_text_or_a_list(given):
    with pytest.raises(PromptError, match="prompts are a text or a list"):
        PromptSet.of(given)


def test_the_runs_threshold_fills_in_where_a_prompt_has_none():
    prompts = PromptSet.of(["a", Prompt("b", threshold=0.9)])
    assert [p.threshold for p in prompts.with_threshold(0.25)] == [0.25, 0.9]
    assert prompts.with_threshold(None) is prompts
