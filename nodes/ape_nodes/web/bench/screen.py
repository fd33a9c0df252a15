"""The part of `ape-stream bench live` that needs a browser: how old an image is on the screen.

A Chromium without a window opens the page, and is asked for what the page's latency graph shows.
That the page says the truth is a test of its own: there the clock is in the pixels.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
import cv2
from aiohttp import web

from ape_nodes.benchmarks import percentiles
from ape_stream.cli.console import say
from ape_stream.errors import ApeStreamError
from ape_stream.sources.synthetic import SyntheticSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "START_S",
    "Nano",
    "Shown",
    "browser",
    "camera_to_shown",
    "nano",
    "show",
    "shown",
    "tab",
    "value",
    "wait_for_image",
]

START_S: Final = 60.0
"""Seconds for a browser, a model and the first image; a busy machine takes many."""
_ARGUMENTS: Final = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader", "--remote-debugging-port=0", "--window-size=1400,900",
)  # fmt: skip
_WORLD: Final = "synthetic://7?size=320x240&fps=30&frames=60"
_PROMPTS: Final = "red apple, car"
_URL: Final = re.compile(r"https?://\S+#t=\S+")
_SAMPLES: Final = "app.tiles[0].stream.images.samples"
_WIRE: Final = 4
"""Position of the first stage after the encoding in what the page measures (series.js)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Ages of the images that were drawn, milliseconds."""

    form: str
    fps: float
    encoded_ms_p50: float
    """From the end of the encoding to the screen."""
    encoded_ms_p95: float
    camera_ms_p50: float
    """From the source's delivery to the screen."""
    camera_ms_p95: float


@dataclass(frozen=True, slots=True)
class Nano:
    """A run of `ape-stream live` with APE-Nano."""

    url: str
    """Of its page, with the token."""
    pid: int


def browser() -> str | None:
    """The Chromium that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@asynccontextmanager
async def tab(program: str, url: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The debugging socket of a tab with this page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, *_ARGUMENTS, f"--user-data-dir={profile}", url, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            async with asyncio.timeout(START_S), aiohttp.ClientSession() as client:
                said = Path(profile) / "DevToolsActivePort"
                while not (said.exists() and said.read_text().count("\n")):  # noqa: ASYNC110 (a file)
                    await asyncio.sleep(0.1)
                port = said.read_text().split()[0]
                async with client.get(f"http://127.0.0.1:{port}/json") as answer:
                    tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
                address = tabs[0]["webSocketDebuggerUrl"]
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(address, max_msg_size=2**26) as socket,
            ):
                yield socket
        finally:
            process.terminate()
            await process.wait()


async def value(socket: aiohttp.ClientWebSocketResponse, script: str) -> Any:
    """What the body of an async function with the page's `app` returns."""
    text = f"import('/js/main.js').then(({{app}}) => (async () => {{ {script} }})())"
    asked = {"expression": text, "awaitPromise": True, "returnByValue": True}
    await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": asked})
    while (answer := await socket.receive_json()).get("id") != 1:
        pass
    # Neither while the page is being loaded.
    return answer.get("result", {}).get("result", {}).get("value")


async def wait_for_image(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Wait until a page shows an image.

    Raises:
        ApeStreamError: it shows none for a minute.
    """
    await _until(socket, "Boolean(app.tiles[0]?.stream.shown)")


async def _until(socket: aiohttp.ClientWebSocketResponse, condition: str) -> None:
    try:
        async with asyncio.timeout(START_S):
            while (await value(socket, f"return {condition}")) is not True:  # noqa: ASYNC110 (a page)
                await asyncio.sleep(0.2)
    except TimeoutError as error:
        raise ApeStreamError(f"the page has drawn no new image for {START_S:g} s") from error


async def show(
    socket: aiohttp.ClientWebSocketResponse,
    *,
    codec: Literal["jpeg", "h264"],
    mode: Literal["live", "sync"],
) -> None:
    """Choose what a page shows, and wait until it has shown it for two seconds.

    Raises:
        ApeStreamError: it shows no such image for a minute; in sync it waits for the model.
    """
    wish = "jpeg" if codec == "jpeg" else "auto"
    choose = f"app.settings.set('codec', '{wish}'); app.settings.set('mode', '{mode}');"
    asked_ms = await value(socket, f"{choose} return performance.now()")
    # What was on its way before comes within half a second.
    await _until(socket, f"({_SAMPLES}.at(-1)?.atMs ?? 0) > {asked_ms} + 500")
    await asyncio.sleep(2.0)


async def shown(
    program: str,
    url: str,
    form: str,
    seconds: float,
    *,
    codec: Literal["jpeg", "h264"],
    mode: Literal["live", "sync"] = "live",
) -> Shown:
    """Ages of the images of a page.

    Args:
        program: The browser.
        url: The page, with its token.
        form: Name of the row.
        seconds: How long.
        codec: "jpeg" or "h264".
        mode: "live", or "sync": each image with its own masks.

    Raises:
        ApeStreamError: the page shows nothing.
    """
    async with tab(program, url) as socket:
        await wait_for_image(socket)
        await show(socket, codec=codec, mode=mode)
        wait = f"await new Promise((go) => setTimeout(go, {1e3 * seconds}));"
        found = await value(
            socket, f"const from = performance.now(); {wait}"
            f" return {_SAMPLES}.filter((s) => s.atMs >= from).map((s) => s.stages)"
        )  # fmt: skip
    if not found:
        raise ApeStreamError(f"{form}: the page has drawn nothing within {seconds:g} s")
    encoded = percentiles([sum(stages[_WIRE:]) for stages in found])
    camera = percentiles([sum(stages) for stages in found])
    return Shown(form, len(found) / seconds, *encoded[:2], *camera[:2])


@asynccontextmanager
async def _camera(fps: float) -> AsyncIterator[str]:
    """The URL of a network camera, Motion JPEG.

    Its images are drawn beforehand: drawing one takes a tenth of the time of APE-Nano.
    """
    with SyntheticSource(_WORLD, name="camera") as world:
        images = [cv2.imencode(".jpg", frame.image)[1].tobytes() for frame in world]

    async def send(request: web.Request) -> web.StreamResponse:
        kind = "multipart/x-mixed-replace; boundary=frame"
        answer = web.StreamResponse(headers={"Content-Type": kind})
        await answer.prepare(request)
        started = time.monotonic()
        with suppress(ConnectionError):  # the run has ended
            for index, image in enumerate(itertools.cycle(images)):
                await asyncio.sleep(started + index / fps - time.monotonic())
                head = (
                    f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                )
                await answer.write(head.encode() + image + b"\r\n")
        return answer

    app = web.Application()
    app.router.add_get("/camera.mjpg", send)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/camera.mjpg"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _live(source: str) -> AsyncIterator[Nano]:
    """`ape-stream live` with APE-Nano."""
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ape_stream", "live", source, "--prompt", _PROMPTS, "--no-browser",
        "--port", "0", stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    try:
        assert run.stderr is not None  # noqa: S101 (a pipe was asked for)
        async for line in run.stderr:
            if (url := _URL.search(line.decode())) is not None:
                yield Nano(url[0], run.pid)
                return
            say(line.decode().rstrip())  # such as what is compiled
        raise ApeStreamError("ape-stream live has ended without a page")
    finally:
        run.terminate()
        await run.communicate()


@asynccontextmanager
async def nano(fps: float) -> AsyncIterator[Nano]:
    """APE-Nano on a network camera of 320 x 240.

    Args:
        fps: Images a second of the camera.
    """
    async with _camera(fps) as source, _live(source) as run:
        yield run


async def camera_to_shown(program: str, seconds: float) -> Shown:
    """Ages of images that are shown with their own masks, found by APE-Nano.

    Raises:
        ApeStreamError: the page shows nothing.
    """
    async with nano(30.0) as run:
        form = "APE-Nano, 320 x 240, with masks"
        return await shown(program, run.url, form, seconds, codec="jpeg", mode="sync")
