"""A run with a page, and a page without a browser."""

import asyncio
import contextlib
import json
import socket
import threading

import aiohttp
from live_world import ClockSource, SquaresPerceiver

from ape_nodes.web import protocol
from ape_nodes.web.sink import WebSink
from ape_stream.pipeline import Pipeline
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import PromptSet

SIZE = (96, 384)
WAIT_S = 15.0


def own_address():
    """An address of this machine that others reach, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = probe.getsockname()[0]
    return None if address.startswith("127.") else address


@contextlib.asynccontextmanager
async def session(*, linger_s=0.0, **options):
    async with aiohttp.ClientSession(**options) as client:
        yield client
    # aiohttp closes its sockets after the session, in a loop that may end with it; those of TLS
    # take several turns (its documentation, "Graceful shutdown", says .25 s).
    await asyncio.sleep(linger_s)


class LiveRun:
    """A run with a page, in a thread."""

    def __init__(
        self, prompts="red apple, fox", sources=None, perceiver=None, address=None, **options
    ):
        self.sink = WebSink(address or "web:127.0.0.1:0", **options)
        self.pipeline = Pipeline(
            [ClockSource(size=SIZE)] if sources is None else sources,
            SquaresPerceiver() if perceiver is None else perceiver,
            PromptSet.of(prompts),
            tracker=IouTracker,
            sinks=[self.sink],
        )

    def __enter__(self):
        self.pipeline.__enter__()
        self.base, self.tokens = self.sink.address, self.sink.tokens
        self._thread = threading.Thread(target=lambda: [None for _ in self.pipeline])
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.pipeline.stop()
        self._thread.join(WAIT_S)
        self.pipeline.close()

    def headers(self, role="control"):
        return {"Authorization": f"Bearer {getattr(self.tokens, role)}"}

    def ask(self, method, path, role="control", **options):
        """(status, JSON or text) of one request."""

        async def once():
            async with (
                session(headers=self.headers(role)) as client,
                client.request(method, self.base + path, **options) as answer,
            ):
                if answer.content_type == "application/json":
                    return answer.status, await answer.json()
                return answer.status, await answer.read()

        return asyncio.run(once())

    @contextlib.asynccontextmanager
    async def page(self, role="control", hello=None):
        """A page that has said hello."""
        async with (
            session(headers=self.headers(role)) as client,
            client.ws_connect(
                self.base + "/ws", protocols=[protocol.PROTOCOL], max_msg_size=2**24
            ) as ws,
        ):
            page = Page(ws)
            await page.send("hello", **(hello or {}))
            page.welcome = await page.text("welcome")
            yield page


class Page:
    def __init__(self, ws):
        self.ws = ws

    async def send(self, kind, **fields):
        await self.ws.send_str(json.dumps({"type": kind, **fields}))

    async def next(self):
        message = await self.ws.receive(WAIT_S)
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        if message.type is aiohttp.WSMsgType.BINARY:
            return protocol.unpack(message.data)
        raise EOFError(message)

    async def text(self, kind, where=lambda _: True):
        """The next JSON message of a type that fits."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.next()
                if isinstance(message, dict) and message["type"] == kind and where(message):
                    return message

    async def binary(self, kind, *, ack=True, where=lambda _: True):
        """The next binary message of a kind that fits; every one is acknowledged."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self.next()
                if isinstance(message, dict):
                    continue
                if ack:
                    await self.ack(message)
                if message[0].kind == kind and where(message):
                    return message

    async def ack(self, message):
        what = "masks" if message[0].kind == protocol.MASKS else "video"
        await self.send("ack", cam=message[0].cam, seq=message[0].seq, what=what)

    async def gather(self, seconds, *, ack=True):
        """All binary messages of some seconds."""
        found = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    message = await self.next()
                    if not isinstance(message, dict):
                        found.append(message)
                        if ack:
                            await self.ack(message)
        return found
