"""What a run is made of, from TOML or from code."""

from ape_stream.config.run_config import (
    OutputConfig,
    PluginConfig,
    RunConfig,
    SourceConfig,
    load,
    parse,
)

__all__ = ["OutputConfig", "PluginConfig", "RunConfig", "SourceConfig", "load", "parse"]
