"""What viewers of a 720p camera with 20 masks cost the server, and how old its images are.

The server runs in a process of its own, whose CPU time is read; the viewers are in this one. The
images are those of a noisy camera, their masks are ready: no model runs. The row "nobody" shows
what source and pipeline cost alone; the others hold that as well. The rows "encoding alone" tell
machines apart: they are the least that a frame may cost here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import aiohttp
import cv2
import numpy as np

from ape_nodes.benchmarks import camera_image, percentiles, scene
from ape_nodes.web import protocol
from ape_nodes.web.bench import screen
from ape_nodes.web.bench.measured import Line, mean
from ape_nodes.web.encoding.images import H264Encoder, encode_jpeg
from ape_stream.closing import Closing
from ape_stream.draw import draw
from ape_stream.pipeline import Pipeline
from ape_stream.types import Frame, Instances, PromptSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    from ape_nodes.web.bench.measured import Measured
    from ape_stream.types import FrameResult

__all__ = ["CODECS", "RECORDED", "SLOW", "Codec", "measure"]

SIZE: Final = (720, 1280)
NOISE: Final = 32
"""JPEGs of about 145 kB, as of the photo that the bars were set with."""
REGIONS: Final = 20
SLOW_BYTES_PER_S: Final = 1e6
Codec = Literal["jpeg", "h264"]
CODECS: Final[tuple[Codec, ...]] = ("jpeg", "h264")
WARM_S: Final = 1.0
_MARK: Final = "blob"
SLOW: Final = "jpeg, 1, one at 1 MB/s, one stopped"
RECORDED: Final = "recorded 1080p frame: drawing, conversion"


# -- the server's process --------------------------------------------------------------------


def _images(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """A panned image, thirty times."""
    image = camera_image(np.random.default_rng(0), size, NOISE)
    return [np.ascontiguousarray(np.roll(image, 4 * k, axis=1)) for k in range(30)]


class _Camera(Closing):
    """Ready images in turn, each at its time."""

    name = "camera"
    live = True

    def __init__(self, images: Sequence[NDArray[np.uint8]], fps: float) -> None:
        self._images = images
        self._fps = fps
        self._over = threading.Event()

    def close(self, _: BaseException | None = None, /) -> None:
        self._over.set()

    def __iter__(self) -> Iterator[Frame]:
        started = time.monotonic()
        for index in itertools.count():
            due_s = started + index / self._fps - time.monotonic()
            if self._over.wait(max(0.0, due_s)):
                return
            image = self._images[index % len(self._images)]
            yield Frame(image, index, index / self._fps, self.name, time.monotonic_ns())


class _Ready:
    """Twenty ready masks for the first prompt; none for others but a box for each."""

    def __init__(self, result: FrameResult) -> None:
        self._found = result.instances

    def prepare(self, prompts: PromptSet) -> None:
        # Here, not with every frame: it would count as the server's.
        ids = np.arange(REGIONS, dtype=np.int64) % len(prompts)
        self._found = replace(self._found, prompt_ids=ids)

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        return [self._found] * len(frames)


def _serve(line: Connection, size: tuple[int, int], fps: float) -> None:
    """Run until a message to stop; answers "cpu" with CPU seconds, frames, encoders' seconds.

    Those of the encoders are with those of OpenCV's threads, which share in converting colours.
    """
    from ape_nodes.web.sink import WebSink  # noqa: PLC0415 (in the server's process only)

    result = scene(REGIONS, size)
    sink = WebSink("web:127.0.0.1:0")
    camera = _Camera(_images(size), fps)
    run = Pipeline([camera], _Ready(result), PromptSet.of(_MARK), sinks=[sink])
    with run:
        looping = threading.Thread(target=lambda: [None for _ in run])
        looping.start()
        line.send((sink.address, sink.tokens.control))
        while line.recv() != "stop":
            encoder_s = sink.encode_cpu_s + _foreign_s()
            line.send((time.process_time(), run.stats().captured, encoder_s))
        run.stop()
        looping.join()


def _foreign_s() -> float:
    """CPU seconds of threads here that Python did not start; 0 where Linux is missing."""
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    times = [
        (task / "schedstat").read_text()
        for task in Path("/proc/self/task").glob("*")
        if task.name not in ours
    ]
    return sum(int(text.split()[0]) for text in times) / 1e9


# -- viewers -------------------------------------------------------------------------------------


class _Viewer:
    """A page without a browser: acknowledges what it gets, and notes its age."""

    def __init__(self, codec: Codec, bytes_per_s: float | None = None) -> None:
        self.ages_ms: list[float] = []
        self.bytes = 0
        self.seqs: list[int] = []
        self._codec = codec
        self._bytes_per_s = bytes_per_s

    async def look(self, client: aiohttp.ClientSession, url: str) -> None:
        """Look until cancelled."""
        async with _page(client, url) as ws:
            await _say(ws, "sub", cam=0, codec=self._codec)
            async for message in ws:
                if message.type is aiohttp.WSMsgType.BINARY:
                    await self._take(ws, message.data)

    async def _take(self, ws: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        if self._bytes_per_s is not None:
            await asyncio.sleep(len(data) / self._bytes_per_s)
        head = protocol.unpack(data)[0]
        self.bytes += len(data)
        what = "masks" if head.kind == protocol.MASKS else "video"
        if what == "video":
            self.ages_ms.append((time.monotonic_ns() // 1000 - head.captured_us) / 1e3)
            self.seqs.append(head.seq)
        await _say(ws, "ack", cam=head.cam, seq=head.seq, what=what)

    def forget(self) -> None:
        """Begin to measure."""
        self.ages_ms, self.seqs, self.bytes = [], [], 0


@asynccontextmanager
async def _page(
    client: aiohttp.ClientSession, url: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with client.ws_connect(
        f"{url}/ws", protocols=[protocol.PROTOCOL], max_msg_size=2**24
    ) as ws:
        await _say(ws, "hello")
        yield ws


async def _say(ws: aiohttp.ClientWebSocketResponse, kind: str, **fields: Any) -> None:
    await ws.send_str(json.dumps({"type": kind, **fields}))


async def _stopped(client: aiohttp.ClientSession, url: str) -> None:
    """A viewer that asks for everything and acknowledges nothing."""
    async with _page(client, url) as ws:
        await _say(ws, "sub", cam=0)
        await asyncio.sleep(3600)


# -- measuring ---------------------------------------------------------------------------------


class _Bench:
    """A server and ways to look at it."""

    def __init__(self, line: Connection, url: str, client: aiohttp.ClientSession) -> None:
        self._line = line
        self._url = url
        self._client = client

    def _cpu(self) -> NDArray[np.float64]:
        self._line.send("cpu")
        return np.array(self._line.recv(), np.float64)  # (3,) as `_serve` says

    async def look(
        self,
        form: str,
        seconds: float,
        viewers: Sequence[_Viewer],
        *,
        slow: _Viewer | None = None,
        stopped: bool = False,
    ) -> Line:
        """Measure while these viewers look."""
        everybody = [*viewers, *([] if slow is None else [slow])]
        tasks = [asyncio.create_task(v.look(self._client, self._url)) for v in everybody]
        if stopped:
            tasks.append(asyncio.create_task(_stopped(self._client, self._url)))
        await asyncio.sleep(WARM_S)
        for viewer in everybody:
            viewer.forget()
        before = self._cpu()
        await asyncio.sleep(seconds)
        cpu_s, frames, encoder_s = (self._cpu() - before).tolist()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ages = [age for viewer in viewers for age in viewer.ages_ms]
        p50, p95, _ = percentiles(ages) if ages else (None, None, None)
        counts = [len(viewer.ages_ms) for viewer in viewers]
        return Line(
            form=form,
            cpu_ms=1e3 * cpu_s / max(1, frames),
            encoder_ms=1e3 * encoder_s / max(1, frames) if counts else None,
            fps=min(counts) / seconds if counts else None,
            age_ms_p50=p50,
            age_ms_p95=p95,
            kilobytes=sum(v.bytes for v in viewers) / max(1, sum(counts)) / 1e3 if counts else None,
            slow_age_ms_p50=percentiles(slow.ages_ms)[0] if slow and slow.ages_ms else None,
        )

    async def add_prompt(self) -> tuple[float, int]:
        """Milliseconds from an edit to the first masks that know it; images lost meanwhile."""
        viewer = _Viewer("h264")
        looking = asyncio.create_task(viewer.look(self._client, self._url))
        await asyncio.sleep(WARM_S)
        viewer.forget()
        async with _page(self._client, self._url) as ws:
            await _say(ws, "sub", cam=0, video=False)
            await _say(ws, "prompts.set", base_rev=1, ops=[{"op": "add", "text": "ball"}])
            asked_s, known_ms = time.monotonic(), None
            async for message in ws:
                if message.type is aiohttp.WSMsgType.BINARY:
                    head = protocol.unpack(message.data)[0]
                    if head.prompt_rev >= 2:
                        known_ms = 1e3 * (time.monotonic() - asked_s)
                        break
                    await _say(ws, "ack", cam=0, seq=head.seq, what="masks")
        await asyncio.sleep(0.5)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        lost = viewer.seqs[-1] - viewer.seqs[0] + 1 - len(viewer.seqs) if viewer.seqs else -1
        return known_ms or -1.0, lost


def _alone(codec: Codec, seconds: float, size: tuple[int, int]) -> Line:
    """The encoder without a server: CPU time of an image, milliseconds."""
    encoder, images, taken = H264Encoder(size[1]), _images(size), 0
    started, bytes_ = time.process_time(), 0
    while (spent := time.process_time() - started) < seconds / 4 or not taken:
        image = images[taken % len(images)]
        jpeg = codec == "jpeg"
        data = encode_jpeg(image, size[1]) if jpeg else encoder.encode(image, key=False)[0]
        bytes_, taken = bytes_ + len(data), taken + 1
    own_ms = 1e3 * spent / taken
    return Line(f"{codec}, encoding alone", own_ms, own_ms, kilobytes=bytes_ / taken / 1e3)


def _recorded(seconds: float) -> Line:
    """Masks, boxes and labels drawn into a frame, and its colours converted for an encoder."""
    result, taken = scene(REGIONS), 0
    draw(result)  # supervision is imported
    started = time.process_time()
    while (spent := time.process_time() - started) < seconds / 4 or not taken:
        cv2.cvtColor(draw(result), cv2.COLOR_BGR2YUV_I420)
        taken += 1
    return Line(RECORDED, 1e3 * spent / taken)


async def _measure(
    measured: Measured,
    line: Connection,
    seconds: float,
    size: tuple[int, int],
    program: str | None,
) -> None:
    url, token = line.recv()
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as client:
        bench = _Bench(line, url, client)
        measured.add(await bench.look("nobody", seconds, []))
        for codec in CODECS:
            measured.add(_alone(codec, seconds, size))  # next to the others: machines get busy
            turns = []
            for count in (1, 4, 4, 1):  # so that a machine that gets slower changes no ratio
                viewers = [_Viewer(codec) for _ in range(count)]
                form = f"{codec}, {count} of 720p"
                turns.append(await bench.look(form, seconds / 2, viewers))
            measured.add(mean(turns[0], turns[3]))
            measured.add(mean(turns[1], turns[2]))
        slow = _Viewer("jpeg", SLOW_BYTES_PER_S)
        measured.add(await bench.look(SLOW, seconds, [_Viewer("jpeg")], slow=slow, stopped=True))
        measured.known_ms, measured.lost = await bench.add_prompt()
    measured.add(_recorded(seconds))
    if program is not None:
        page = f"{url}/#t={token}"
        for codec in CODECS:
            form = f"{codec}, 720p"
            measured.add(await screen.shown(program, page, form, seconds, codec=codec))
        measured.add(await screen.camera_to_shown(program, seconds))


def measure(
    measured: Measured,
    seconds: float,
    fps: float = 30.0,
    size: tuple[int, int] = SIZE,
    program: str | None = None,
) -> None:
    """Look at a server in every way.

    Args:
        measured: Takes what is measured.
        seconds: How long each is measured.
        fps: Images a second of the camera.
        size: Height and width of the images, pixels.
        program: A Chromium for ages on the screen; None leaves them out.

    Raises:
        ApeStreamError: the page shows nothing.
    """
    ours, theirs = multiprocessing.Pipe()
    # Spawned: a forked process would share the threads' locks of this one.
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, size, fps))
    server.start()
    try:
        asyncio.run(_measure(measured, ours, seconds, size, program))
    finally:
        ours.send("stop")
        server.join(10.0)
        server.kill()
