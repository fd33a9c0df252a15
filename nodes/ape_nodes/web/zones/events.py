"""Events of zones on their way out: JSON lines, a webhook, MQTT.

Each way has a bounded queue and a task of its own: one that is slow or away holds up neither the
run nor the others. What finds its queue full is dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp

from ape_stream.errors import ConfigError, SinkError
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from urllib.parse import SplitResult

    from ape_nodes.web.zones.counting import Event

__all__ = ["Events", "Way", "ways"]

QUEUE: Final = 1000
"""Events that may wait for one way out."""
TIMEOUT_S: Final = 5.0
ATTEMPTS: Final = 3
DRAIN_S: Final = 2.0
"""Seconds that the end of a run leaves for events that wait."""
_QUEUE_IS_FULL: Final = 15
"""MQTT_ERR_QUEUE_SIZE of paho."""
_log = logging.getLogger("ape_stream")


class Way(Protocol):
    """One way out."""

    name: str

    async def open(self) -> None:
        """Open it.

        Raises:
            SinkError: it cannot be used.
        """
        ...

    async def send(self, text: str) -> None:
        """Send one event, a JSON object.

        Raises:
            SinkError: it did not arrive.
        """
        ...

    async def close(self) -> None:
        """Close it."""
        ...


class _Lines:
    """A file with one event a line; lines are added at its end."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = Path(path).expanduser()

    async def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"cannot write {self.name}: {error.strerror or error}") from error

    async def send(self, text: str) -> None:
        try:
            self._file.write(f"{text}\n")
            self._file.flush()
        except OSError as error:
            raise SinkError(f"cannot write {self.name}: {error.strerror or error}") from error

    async def close(self) -> None:
        self._file.close()


class _Webhook:
    """POSTs each event to a URL; tried three times."""

    def __init__(self, url: str) -> None:
        parts = _parts(url, "webhook")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"webhook is http:// or https://HOST..., not {parts.scheme}://...")
        self.name = f"webhook {parts.hostname}"  # without user, password and query
        self._url = url

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def send(self, text: str) -> None:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(2.0**attempt / 4)
            try:
                # Not followed elsewhere: the user named one address.
                async with self._session.post(
                    self._url, data=text, allow_redirects=False,
                    headers={"Content-Type": "application/json"},
                ) as answer:  # fmt: skip
                    if answer.status < 300:
                        return
                    problem = f"status {answer.status}"
                    if answer.status < 500:  # it will say the same again
                        break
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
        raise SinkError(f"{self.name} took no event: {problem}")

    async def close(self) -> None:
        await self._session.close()


class _Mqtt:
    """Publishes each event at least once: `mqtt://user:password@host:1883/topic/of/events`."""

    def __init__(self, url: str) -> None:
        parts = _parts(url, "mqtt")
        topic = unquote(parts.path.strip("/"))
        wild = set(f"{topic}{url}") & set("+#?")
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or wild:
            raise ConfigError(f"mqtt is mqtt://HOST:PORT/TOPIC, not {parts.scheme}://...")
        self.name = f"mqtt {parts.hostname}"
        self._topic = topic or "ape_stream/events"
        self._host = parts.hostname
        tls = parts.scheme == "mqtts"
        self._port = parts.port or (8883 if tls else 1883)
        mqtt: Any = library("paho.mqtt.client", "mqtt")
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._sent = threading.Condition()
        self._waiting = 0  # events that the broker has not acknowledged
        self._client.on_publish = self._acknowledged
        self._client.max_queued_messages_set(QUEUE)
        if parts.username is not None:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if tls:
            self._client.tls_set()

    async def open(self) -> None:
        # Its own thread connects, and again whenever the broker was away.
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()

    async def send(self, text: str) -> None:
        with self._sent:
            self._waiting += 1
        # Without a connection it waits in the client's queue, and is sent when there is one.
        if self._client.publish(self._topic, text, qos=1).rc == _QUEUE_IS_FULL:
            self._acknowledged()
            raise SinkError(f"{self.name} took no event: its queue is full")

    def _acknowledged(self, *_about: Any) -> None:
        with self._sent:
            self._waiting -= 1
            self._sent.notify_all()

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._end)

    def _end(self) -> None:
        with self._sent:
            if not self._sent.wait_for(lambda: self._waiting <= 0, DRAIN_S):
                _log.warning("%s: %d events were not acknowledged", self.name, self._waiting)
        self._client.disconnect()
        self._client.loop_stop()


def _parts(url: str, what: str) -> SplitResult:
    """The parts of a URL; errors name none of them: they may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{what} is no URL: its host or port cannot be read") from error
    return parts


def ways(lines: str | None, webhook: str | None, mqtt: str | None) -> list[Way]:
    """The ways that were asked for.

    Raises:
        ConfigError: an address cannot be understood.
        PluginError: the extra `mqtt` is not installed.
    """
    chosen: list[Way] = []
    if lines is not None:
        chosen.append(_Lines(lines))
    if webhook is not None:
        chosen.append(_Webhook(webhook))
    if mqtt is not None:
        chosen.append(_Mqtt(mqtt))
    return chosen


class Events:
    """Sends every event on every way; used on the event loop.

    Args:
        chosen: The ways.
    """

    def __init__(self, chosen: Sequence[Way]) -> None:
        self.sent = 0
        self.dropped: dict[str, int] = {}
        """Events that did not arrive, by way."""
        self._ways = tuple(chosen)
        self._queues: list[asyncio.Queue[str]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open every way.

        Raises:
            SinkError: one cannot be used.
        """
        for way in self._ways:
            await way.open()
            queue: asyncio.Queue[str] = asyncio.Queue(QUEUE)
            self._queues.append(queue)
            self._tasks.append(asyncio.create_task(self._deliver(way, queue)))

    def put(self, event: Event) -> None:
        """Send an event; never waits."""
        text = json.dumps(asdict(event))
        for way, queue in zip(self._ways, self._queues, strict=True):
            try:
                queue.put_nowait(text)
            except asyncio.QueueFull:
                self._lose(way, "its queue is full")

    async def _deliver(self, way: Way, queue: asyncio.Queue[str]) -> None:
        while True:
            text = await queue.get()
            try:
                await way.send(text)
                self.sent += 1
            except SinkError as error:
                self._lose(way, str(error))
            finally:
                queue.task_done()

    def _lose(self, way: Way, why: str) -> None:
        self.dropped[way.name] = self.dropped.get(way.name, 0) + 1
        # The first and every hundredth: a flood of events must not flood the log.
        if self.dropped[way.name] % 100 == 1:
            _log.warning("events: %s (%d lost so far)", why, self.dropped[way.name])

    async def close(self) -> None:
        """Send what waits, for 2 s at most, and close."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                for queue in self._queues:
                    await queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for way in self._ways[: len(self._queues)]:
            await way.close()
