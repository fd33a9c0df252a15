"""What a run is made of, from TOML or from code.

run_config  RunConfig and its parts; read from TOML
build       build_pipeline: from a RunConfig to a Pipeline
"""

from ape_stream.config.run_config import (
    OutputConfig,
    PluginConfig,
    RunConfig,
    SourceConfig,
    load,
    parse,
)

__all__ = ["OutputConfig", "PluginConfig", "RunConfig", "SourceConfig", "load", "parse"]
