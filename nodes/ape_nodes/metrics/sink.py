"""The output `metrics:127.0.0.1:9464`: numbers of any run for Prometheus, without a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from prometheus_client import start_http_server

from ape_nodes.metrics.collector import registry_of
from ape_nodes.reach import is_loopback
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.stats import RunStats
    from ape_stream.types import FrameResult

__all__ = ["MetricsSink"]

DEFAULT_PORT = 9464
"""As the exporter of OpenTelemetry for Prometheus has it."""


class MetricsSink(Closing):
    """Answers scrapes while the run goes on; results pass it by.

    Args:
        spec: `metrics:HOST:PORT`, or `metrics:PORT` for this machine alone.
        public: True allows a bind that other machines reach; whoever does may read the numbers.

    Raises:
        ConfigError: the address cannot be used, or is public and that was not allowed.
    """

    def __init__(self, spec: str, *, public: bool = False) -> None:
        self.name = spec
        text = spec.removeprefix("metrics:")
        host, _, port = text.rpartition(":")
        self._host = host.strip("[]") or "127.0.0.1"
        port = port or str(DEFAULT_PORT)
        if not port.isdecimal() or int(port) > 65_535:
            raise ConfigError(f"{spec!r}: give HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}")
        if not (public or is_loopback(self._host)):
            raise ConfigError(
                f"{self._host} can be reached from other machines: give the output public=true in"
                " a TOML file, or take 127.0.0.1"
            )
        self._port = int(port)
        self._stats: Callable[[], RunStats] | None = None

    def watch(self, stats: Callable[[], RunStats]) -> None:
        """Take the run's statistics; see `WatchesRun`."""
        self._stats = stats

    def __enter__(self) -> Self:
        """Bind the port.

        Raises:
            ConfigError: the address cannot be bound.
        """
        if self._stats is None:
            raise ConfigError("the metrics output belongs to a run: give it to a pipeline")
        try:
            self._server, self._thread = start_http_server(
                self._port, self._host, registry_of(self._stats)
            )
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics at {self._host}:{self._port}: {error.strerror or error}"
            ) from error
        self._port = self._server.server_port
        return self

    @property
    def address(self) -> str:
        """Where scrapes are answered."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/metrics"

    def write(self, result: FrameResult) -> None:
        """Nothing: the numbers are those of the run."""

    def close(self, _: BaseException | None = None, /) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)
