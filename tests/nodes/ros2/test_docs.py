from pathlib import Path

import pytest

from ape_nodes.ros2.docs import refreshed
from ape_nodes.ros2.parameters import PARAMETERS, PROMPT_PARAMETERS, prompt_set
from ape_nodes.ros2.topics import OUTPUTS
from ape_stream.errors import ConfigError, PromptError

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs/ros2.md"


def test_the_tables_in_the_document_are_those_of_the_code():
    text = DOCUMENT.read_text()
    assert refreshed(text, ROOT / "launch") == text, (
        "run python -m ape_nodes.ros2.docs docs/ros2.md"
    )
    assert all(f"`{parameter.name}`" in text for parameter in PARAMETERS)
    assert all(f"`~/{topic.name}`" in text for topic in OUTPUTS)
    assert "`/diagnostics`" in text
    assert "| `multi_camera.launch.py` | `cameras` |" in text


def test_parameters_make_prompts():
    made = prompt_set(values(["cat", "dog"], ["dog:0.7", "cow:0.1"], 0.4))
    assert [(p.text, p.threshold) for p in made] == [("cat", 0.4), ("dog", 0.7)]
    assert [p.threshold for p in prompt_set(values(["cat", "a: b"], [""]))] == [None, None]
    own = prompt_set(values(["dog: 0.2"], ["dog:0.7"]))
    assert [(p.text, p.threshold) for p in own] == [("dog", 0.2)]


def values(texts, thresholds, lowest=0.0):
    return dict(zip(PROMPT_PARAMETERS, (texts, thresholds, lowest), strict=True))


@pytest.mark.parametrize(
    ("texts", "thresholds"),
    [
        (["", "cat"], []),
        ([], []),
        (["a", "a"], []),
        (["a"], ["a"]),
        (["a"], ["a:1.7"]),
        (["a:nan"], []),
    ],
)
def test_unusable_values_are_refused(texts, thresholds):
    with pytest.raises(PromptError):
        prompt_set(values(texts, thresholds))


def test_choices_and_limits_are_checked():
    specs = {parameter.name: parameter for parameter in PARAMETERS}
    specs["score_threshold"].check(1.0)
    with pytest.raises(ConfigError, match=r"0.0..1.0"):
        specs["score_threshold"].check(1.7)
    with pytest.raises(ConfigError, match="mono16, mono8"):
        specs["mask_encoding"].check("mono4")
