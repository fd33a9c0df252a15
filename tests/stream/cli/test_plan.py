"""From options to a run."""

from pathlib import Path

import pytest

from ape_stream.cli.plan import Options, from_file, from_options
from ape_stream.config import PluginConfig
from ape_stream.errors import ConfigError, PromptError, UsageError


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def options(**given):
    return Options(**{"sources": ["synthetic://1"], "prompt": ["red apple, dog face"], **given})


def test_a_config_without_prompts_takes_those_of_the_options():
    Path("model.toml").write_text('model = { plugin = "ape", model = "D" }\npolicy = "every"\n')
    plan = from_options(options(config=Path("model.toml")))
    assert plan.prompts.texts == ("red apple", "dog face")
    assert (plan.model.options, plan.policy) == ({"model": "D"}, "every")
    with pytest.raises(PromptError, match=r"model\.toml: no prompt given"):
        from_options(options(config=Path("model.toml"), prompt=[]))


def test_a_prompts_file_has_a_prompt_a_line_and_comments():
    text = "\ufeff# mine\nred apple\n\n  # more\nthe cup, left of the plate\n"
    Path("words.txt").write_text(text, encoding="utf-8")
    plan = from_options(options(prompt=["spoon, red apple"], prompts_file=Path("words.txt")))
    assert plan.prompts.texts == ("spoon", "red apple", "the cup, left of the plate")


def test_thresholds_for_all_and_for_one():
    plan = from_options(options(thresholds=["0.3", "dog  face=.6"]))
    assert plan.threshold == 0.3
    assert [prompt.threshold for prompt in plan.prompts] == [None, 0.6]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("high", "threshold 'high' is no number"),
        ("dog face=", "threshold 'dog face=' is no number"),
        ("cat=0.4", "threshold for 'cat', which is no prompt; there are: red apple, dog face"),
        ("dog face=4", "not within 0..1"),
        ("nan", "not within 0..1"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(given, says):
    with pytest.raises(UsageError, match=says):
        from_options(options(thresholds=[given]))


def test_tracker_model_and_policy():
    plan = from_options(
        options(
            tracker="none",
            policy="newest",
            model={"canvas": 640, "dtype": "bfloat16", "model": None},
        )
    )
    assert plan.tracker is None
    assert plan.policy == "newest"
    assert plan.model.options == {"canvas": 640, "dtype": "bfloat16"}
    assert from_options(options(tracker="trackers")).tracker == PluginConfig("trackers")
    with pytest.raises(UsageError, match="policy 'some' is none of auto, every, newest"):
        from_options(options(policy="some"))


def test_overwrite_is_taken_from_either():
    Path("run.toml").write_text('prompts = ["a"]\noverwrite = true\n')
    assert from_file(Path("run.toml"), overwrite=False).overwrite
    assert not from_options(options()).overwrite
    assert from_options(options(overwrite=True)).overwrite


def test_the_prompts_file_cannot_be_an_output():
    Path("words.json").write_text("red apple\n")
    with pytest.raises(ConfigError, match=r"words\.json is both an output and the source"):
        from_options(
            options(prompts_file=Path("words.json"), output=["./words.json"], overwrite=True)
        )
