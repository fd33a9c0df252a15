"""Cameras, prompts and viewers of one run; lives on the event loop."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ape_nodes.metrics.collector import registry_of
from ape_nodes.web import browser_camera, protocol, still
from ape_nodes.web.access import Role
from ape_nodes.web.camera import Camera
from ape_nodes.web.encoding.views import has_view
from ape_nodes.web.prompts import MAX_PROMPTS, PromptList, one_line
from ape_nodes.web.recorder import jpeg
from ape_nodes.web.zones.counting import MAX_ZONES
from ape_stream.draw import palette
from ape_stream.errors import ApeStreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ape_nodes.metrics.collector import Metric
    from ape_nodes.web.camera import Encoded
    from ape_nodes.web.recorder import Recorder
    from ape_nodes.web.viewer import Viewer
    from ape_nodes.web.zones.counting import Event
    from ape_nodes.web.zones.events import Events
    from ape_stream.protocols import RunControl
    from ape_stream.types import FrameResult, MapKind

__all__ = ["MAX_VIEWERS", "Hub", "now_us"]

MAX_VIEWERS: Final = 16
T = TypeVar("T")


class Hub:
    """What all viewers share.

    Args:
        run: The run.
        streams: Names of its streams, in order.
        hide: See `Camera`.
        locked: Texts of prompts that cannot be given up.
        recorder: Writes videos and snapshots.
        events: Where events of zones go.
    """

    def __init__(
        self,
        run: RunControl,
        streams: Sequence[str],
        recorder: Recorder,
        events: Events,
        *,
        hide: Callable[[FrameResult], FrameResult] | None = None,
        locked: Sequence[str] = (),
    ) -> None:
        self.recorder = recorder
        self.events = events
        self.run = run
        self.viewers: set[Viewer] = set()
        self.seats = 0
        """Sockets that are open or being opened."""
        self.maps: frozenset[MapKind] = frozenset()
        """The maps that viewers look at; read by the model's thread."""
        self.cameras = [Camera(k, name, self._delivered, hide) for k, name in enumerate(streams)]
        self.by_name = {camera.name: camera for camera in self.cameras}
        self.prompts = PromptList(run.prompts, self._set_prompts, self._prompts_changed, locked)
        self.registry = registry_of(run.stats, self._metrics)
        self._locked = tuple(locked)
        self._states: dict[int, tuple[Any, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        """By camera: when the rate that a viewer wishes lets it have the next image."""
        self._loop: asyncio.AbstractEventLoop | None = None
        # One at a time: edits must not overtake one another on their way to the model.
        self._editor = ThreadPoolExecutor(1, "prompts of the page")
        self._aside_pool = ThreadPoolExecutor(1, "snapshots")

    # -- life -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to serve; on the event loop.

        Raises:
            SinkError: a way for events cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self.events.start()
        for camera in self.cameras:
            camera.start()
        self.spawn(self._tick())

    async def close(self, why: str) -> None:
        """Say goodbye to every viewer and end all tasks."""
        self.broadcast({"type": "bye", "why": why})
        for viewer in self.viewers:
            viewer.end()
        await asyncio.sleep(0.05)  # for what waits to be sent
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for camera in self.cameras:
            camera.close()
        await self.events.close()
        for pool in (self._editor, self._aside_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task that ends with the hub."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have the event loop do something; from any thread, dropped where the loop has ended."""
        if self._loop is None or self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(work, *arguments)
        except RuntimeError:  # it was closed meanwhile
            return

    # -- messages to viewers ---------------------------------------------------------------

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send JSON to every viewer."""
        text = json.dumps(message)
        for viewer in self.viewers:
            if viewer.greeted:
                viewer.send(text)

    def happened(self, event: Event) -> None:
        """Send an event of a zone on its ways, and to every viewer."""
        self.events.put(event)
        self.broadcast({"type": "event", **asdict(event)})

    def _delivered(self, camera: Camera, messages: Sequence[Encoded]) -> None:
        self.call(self._offer, camera, messages)

    def _offer(self, camera: Camera, messages: Sequence[Encoded]) -> None:
        for message in messages:
            for viewer in self.viewers:
                viewer.offer(camera, message)
        self.refresh(camera)

    def refresh(self, camera: Camera) -> None:
        """Let a camera know for what there is room."""
        camera.want(frozenset(want for v in self.viewers for want in v.wants(camera.index)))
        if (timer := self._timers.pop(camera.index, None)) is not None:
            timer.cancel()
        pauses = [pause for v in self.viewers if (pause := v.pause_s(camera.index))]
        if pauses and self._loop is not None:
            timer = self._loop.call_later(min(pauses), self.refresh, camera)
            self._timers[camera.index] = timer

    def refresh_all(self) -> None:
        """The same for every camera, and the maps that are looked at."""
        self.maps = frozenset(
            view for viewer in self.viewers for view in viewer.views if view != "instances"
        )
        for camera in self.cameras:
            self.refresh(camera)

    async def _tick(self) -> None:
        """Once a second: statistics, states of the cameras, sizes for slow viewers."""
        while True:
            await asyncio.sleep(1.0)
            for viewer in self.viewers:
                for camera in self.cameras:
                    viewer.adapt(camera)
            self.refresh_all()
            self.send_states()
            if any(viewer.greeted for viewer in self.viewers):
                self._send_stats()

    def send_states(self) -> None:
        """Say which cameras have begun, fallen silent, or are recorded now."""
        for camera in self.cameras:
            state = self.camera_state(camera)
            known = (state["state"], state["recording"])
            if self._states.get(camera.index) != known:
                self._states[camera.index] = known
                self.broadcast(state)

    def _send_stats(self) -> None:
        stats = {"type": "stats", **self.stats(), "now_us": now_us()}
        for viewer in self.viewers:
            if viewer.greeted:
                viewer.send(json.dumps({**stats, "you": viewer.numbers()}))

    def camera_state(self, camera: Camera) -> dict[str, Any]:
        """The message `cam`."""
        arrived = camera.arrived_s
        age = None if arrived is None else round(1e3 * (time.monotonic() - arrived))
        return {
            "type": "cam", "cam": camera.index, "state": camera.state, "age_ms": age,
            "recording": self.recorder.recording(camera.name),
        }  # fmt: skip

    def stats(self) -> dict[str, Any]:
        """The run's statistics and ours."""
        return {
            **self.run.stats().as_dict(),
            "viewers": len(self.viewers),
            "encode_ms_p50": {c.name: c.encode.ms(0.5) for c in self.cameras},
        }

    def _metrics(self) -> list[Metric]:
        """What a scrape gets in addition to the run's own numbers."""
        seen = GaugeMetricFamily("ape_stream_viewers", "Open pages.", len(self.viewers))
        encode = GaugeMetricFamily(
            "ape_stream_encode_seconds",
            "Encoding an image for viewers, of the last 512.",
            labels=["stream", "quantile"],
        )
        images = CounterMetricFamily(
            "ape_stream_images_encoded", "Images encoded for viewers.", labels=["stream"]
        )
        cpu = CounterMetricFamily(
            "ape_stream_encode_cpu_seconds", "CPU time of these encodings.", labels=["stream"]
        )
        for camera in self.cameras:
            times = camera.encode
            images.add_metric([camera.name], times.count)
            cpu.add_metric([camera.name], camera.encode_cpu_s)
            for quantile in (0.5, 0.95):
                if (ms := times.ms(quantile)) is not None:
                    encode.add_metric([camera.name, str(quantile)], ms / 1e3)
        lost = CounterMetricFamily(
            "ape_stream_events_dropped", "Events of zones that did not arrive.", labels=["way"]
        )
        for way, count in self.events.dropped.items():
            lost.add_metric([way], count)
        sent = CounterMetricFamily("ape_stream_events_sent", "Events that arrived.")
        sent.add_metric([], self.events.sent)
        return [seen, encode, images, cpu, lost, sent]

    def welcome(self, viewer: Viewer) -> dict[str, Any]:
        """The first message to a viewer."""
        can_write = self.recorder.folder is not None and viewer.role is Role.CONTROL
        return {
            "type": "welcome",
            "version": 1,
            "role": viewer.role.name.lower(),
            "viewer": viewer.number,
            "cams": [self.describe(camera) for camera in self.cameras],
            "can": {
                "h264": True,
                "record": can_write,
                "snapshot": can_write,
                "maps": self.run.paints_maps,
            },
            "blur": list(self._locked),
            "palette": [f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in palette()],
            "limits": {
                "text": protocol.MAX_TEXT_CHARS,
                "prompts": MAX_PROMPTS,
                "zones": MAX_ZONES,
            },
            "now_us": now_us(),
        }

    def camera(self, index: int) -> Camera:
        """A camera by its position.

        Raises:
            UsageError: there is none.
        """
        if not 0 <= index < len(self.cameras):
            raise UsageError(f"there is no camera {index}")
        return self.cameras[index]

    def describe(self, camera: Camera) -> dict[str, Any]:
        """A camera for pages."""
        stays = still.by_name(camera.name) is not None
        return {
            "id": camera.index,
            "name": camera.name,
            "live": camera.name in self.run.live_streams,
            "browser": browser_camera.by_name(camera.name) is not None and not stays,
            "still": stays,
            "state": camera.state,
        }

    # -- prompts --------------------------------------------------------------------------

    async def _set_prompts(self, prompts: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._editor, self.run.set_prompts, prompts)

    def _prompts_changed(self) -> None:
        self.broadcast(self.prompts.state())

    async def apply_prompts(self) -> None:
        """Bring the model after the list; errors are reported to every viewer."""
        try:
            await self.prompts.apply()
        except ApeStreamError as error:
            self.broadcast({"type": "error", "reason": one_line(error)})
        for camera in self.cameras:
            self._look_again(camera)

    def show_again(self, camera: Camera) -> None:
        """Look at an image that stays once more if its result lacks a map that is wanted now."""
        newest = camera.newest
        if newest is not None and not all(has_view(newest, view) for view in self.maps):
            self._look_again(camera)

    def _look_again(self, camera: Camera) -> None:
        if (image := still.by_name(camera.name)) is not None:
            image.again()

    # -- zones, snapshots, recordings -----------------------------------------------------

    def set_zones(self, camera: Camera, zones: Sequence[protocol.Zone], rev: int | None) -> int:
        """Replace the zones of a camera; returns their new revision.

        Raises:
            UsageError: they cannot be used, or were changed since `rev` (`ConflictError`).
        """
        camera.zones.replace(zones, rev)
        self._look_again(camera)
        self.broadcast(self.zones_state(camera))
        return camera.zones.rev

    def zones_state(self, camera: Camera) -> dict[str, Any]:
        """The message `zones`."""
        zones = camera.zones
        listed = [asdict(zone) for zone in zones.zones]
        counts = zones.counts()
        return {
            "type": "zones",
            "cam": camera.index,
            "rev": zones.rev,
            "zones": listed,
            "counts": counts,
        }

    async def snapshot(self, camera: Camera) -> str:
        """Write the newest image with its overlay; returns the file's name.

        Raises:
            UsageError: there is no folder, or no image yet.
            SinkError: it cannot be written.
        """
        self.recorder.checked_folder()  # no image would change that it is missing
        return await self._aside(self.recorder.snapshot, self.newest(camera))

    async def jpeg(self, camera: Camera) -> bytes:
        """The newest image with its overlay.

        Raises:
            UsageError: there is none yet.
        """
        return await self._aside(jpeg, self.newest(camera))

    def newest(self, camera: Camera) -> FrameResult:
        """The newest result as it may be shown.

        Raises:
            UsageError: there is none yet.
        """
        if camera.newest is None:
            raise UsageError(f"{camera.name}: there is no image yet")
        return camera.newest

    async def record(self, camera: Camera, *, on: bool, overlay: bool) -> None:
        """Start or stop a recording.

        Raises:
            UsageError: there is no folder.
        """
        await self._aside(partial(self.recorder.record, camera.name, on=on, overlay=overlay))
        self.send_states()

    async def _aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what takes a while in another thread."""
        return await asyncio.get_running_loop().run_in_executor(self._aside_pool, work, *arguments)


def now_us() -> int:
    """Microseconds of the server's monotonic clock."""
    return time.monotonic_ns() // 1000
