"""A run as TOML: what is written is what runs, and a mistake is named."""

import pytest

from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig, load, parse
from ape_stream.errors import ConfigError, PromptError, UsageError
from ape_stream.types import Prompt, PromptKind, PromptSet

FULL = """
prompts = ["red apple", { text = "sky", stuff = true, threshold = 0.3, kind = "sentence" }]
threshold = 0.4
policy = "newest"
buffer = 2
sources = ["clip.mp4", { source = "rtsp://gate/cam", name = "gate", stream = 1 }]
outputs = ["out.json", { output = "gate.mp4", stream = "gate", crf = 20 }]
model = { plugin = "ape", model = "D", device = "cuda" }
tracker = { plugin = "iou", min_iou = 0.2 }
"""


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_everything_can_be_configured(tmp_path):
    assert load(write(tmp_path, FULL)) == RunConfig(
        sources=(
            SourceConfig("clip.mp4"),
            SourceConfig("rtsp://gate/cam", "gate", {"stream": 1}),
        ),
        prompts=PromptSet(
            (Prompt("red apple"), Prompt("sky", PromptKind.SENTENCE, stuff=True, threshold=0.3))
        ),
        model=PluginConfig("ape", {"model": "D", "device": "cuda"}),
        tracker=PluginConfig("iou", {"min_iou": 0.2}),
        outputs=(OutputConfig("out.json"), OutputConfig("gate.mp4", "gate", {"crf": 20})),
        threshold=0.4,
        policy="newest",
        buffer=2,
    )


def test_little_needs_to_be_configured():
    config = parse({"prompts": ["a"], "sources": ["0"]})
    assert config.model == PluginConfig("ape")
    assert config.tracker == PluginConfig("iou")
    assert (config.threshold, config.policy, config.outputs) == (None, "auto", ())


def test_short_forms():
    config = parse({"prompts": ["a"], "sources": ["0"], "model": "Ti", "tracker": "none"})
    assert config.model == PluginConfig("ape", {"model": "Ti"})
    assert config.tracker is None
    assert parse({"prompts": ["a"], "tracker": "fast"}).tracker == PluginConfig("fast")


def test_the_name_of_a_model_may_name_its_perceiver():
    def model(given):
        return parse({"prompts": ["a"], "model": given}).model

    other = PluginConfig("owlv2", {"model": "x/y"})
    assert model("owlv2:x/y") == model({"model": "owlv2:x/y"}) == other
    assert model({"model": "owlv2:x", "device": "cpu"}).options == {"model": "x", "device": "cpu"}
    mine = model({"plugin": "mine", "model": "a:b", "depth": 3})
    assert mine == PluginConfig("mine", {"model": "a:b", "depth": 3})
    assert mine.with_model("D") == PluginConfig("mine", {"model": "D", "depth": 3})
    assert mine.with_model("owlv2:x/y") == other


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "promts = ['a']\nprompts=['a']",
            "unknown key 'promts' in the configuration; it has: sources,",
        ),
        (
            "prompts = [{ text = 'a', kid = 1 }]",
            "unknown key 'kid' in a prompt; it has: text, kind,",
        ),
        ("prompts = [{ stuff = true }]", "a prompt needs 'text'"),
        ("prompts = [3]", "a prompt must be a text or a table, got 3"),
        ("prompts = 'a'", "'prompts' in the configuration must be a list, got 'a'"),
        (
            "prompts = [{ text = 'a', kind = 'word' }]",
            "'kind' in a prompt must be one of 'vocabulary', 'sentence', got 'word'",
        ),
        ("prompts = ['a']\nsources = [{ name = 'x' }]", "a source needs 'source'"),
        ("prompts = ['a']\noutputs = [{ crf = 1 }]", "an output needs 'output'"),
        ("prompts = ['a']\nthreshold = 2.0", "threshold is 2.0, not within 0..1"),
        (
            "prompts = ['a']\nthreshold = true",
            "'threshold' in the configuration must be a number, got True",
        ),
        ("prompts = ['a']\nbuffer = 0", "at least 1 frame"),
        ("prompts = ['a']\nbuffer = 1.5", "'buffer' in the configuration must be a whole number"),
        (
            "prompts = ['a']\npolicy = 'some'",
            "'policy' in the configuration must be one of 'auto', 'every', 'newest', got 'some'",
        ),
        ("prompts = [", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "prompts = []", "prompts = ['  ']"])
def test_no_prompt_is_a_prompt_error(tmp_path, text):
    with pytest.raises(PromptError, match="prompt"):
        load(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*gone\.toml: No such file"):
        load(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(bad)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'sources = ["a.mp4"]\nprompts = ["cup"]\n')
    assert load(path).prompts.texts == ("cup",)
