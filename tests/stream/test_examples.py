"""What the examples say can be read, and names plugins and options that exist."""

from pathlib import Path

import pytest

from ape_stream.config import load
from ape_stream.plugins import load as load_plugin
from ape_stream.plugins import option_names
from ape_stream.specs import sink_plugin

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_configurations_are_valid(path):
    config = load(path)
    assert config.sources
    for output in config.outputs:
        factory = load_plugin("sinks", sink_plugin(output.output))
        assert set(output.options) <= set(option_names(factory, positional=1))
    if config.tracker is not None:
        tracker = load_plugin("trackers", config.tracker.plugin)
        assert set(config.tracker.options) <= set(option_names(tracker, positional=0))
