"""Cameras, prompts and viewers of one run; lives on the event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ape_nodes.web import protocol
from ape_nodes.web.access import Role
from ape_nodes.web.camera import Camera
from ape_nodes.web.prompts import MAX_PROMPTS, ConflictError, PromptList, one_line
from ape_nodes.web.viewer import Viewer
from ape_stream.errors import ApeStreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from ape_nodes.web.camera import Encoded
    from ape_stream.protocols import RunControl
    from ape_stream.types import FrameResult

__all__ = ["MAX_VIEWERS", "Hub", "now_us"]

MAX_VIEWERS: Final = 16
_HELLO_S: Final = 10.0
_log = logging.getLogger("ape_stream")


class Hub:
    """What all viewers share.

    Args:
        run: The run.
        streams: Names of its streams, in order.
        hide: See `Camera`.
        locked: Texts of prompts that cannot be given up.
    """

    def __init__(
        self,
        run: RunControl,
        streams: Sequence[str],
        *,
        hide: Callable[[FrameResult], FrameResult] | None = None,
        locked: Sequence[str] = (),
    ) -> None:
        self.run = run
        self.viewers: set[Viewer] = set()
        self.cameras = [Camera(k, name, self._delivered, hide) for k, name in enumerate(streams)]
        self.by_name = {camera.name: camera for camera in self.cameras}
        self.prompts = PromptList(run.prompts, self._set_prompts, self._prompts_changed, locked)
        self._locked = tuple(locked)
        self._count = 0
        self._states: dict[int, tuple[Any, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        # One at a time: edits must not overtake one another on their way to the model.
        self._editor = ThreadPoolExecutor(1, "prompts of the page")

    # -- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to serve; called on the event loop."""
        self._loop = asyncio.get_running_loop()
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
        self._editor.shutdown(wait=False, cancel_futures=True)

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

    def _delivered(self, camera: Camera, message: Encoded) -> None:
        self.call(self._offer, camera, message)

    def _offer(self, camera: Camera, message: Encoded) -> None:
        for viewer in self.viewers:
            viewer.offer(camera, message)
        self.refresh(camera)

    def refresh(self, camera: Camera) -> None:
        """Let a camera know for what there is room."""
        camera.want(frozenset(want for v in self.viewers for want in v.wants(camera.index)))

    def refresh_all(self) -> None:
        """The same for every camera."""
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
            self._send_states()
            if any(viewer.greeted for viewer in self.viewers):
                self._send_stats()

    def _send_states(self) -> None:
        for camera in self.cameras:
            state = self.camera_state(camera)
            known = (state["state"], state.get("recording"))
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
        return {"type": "cam", "cam": camera.index, "state": camera.state, "age_ms": age}

    def stats(self) -> dict[str, Any]:
        """The run's statistics and ours."""
        return {
            **self.run.stats().as_dict(),
            "viewers": len(self.viewers),
            "encode_ms_p50": {c.name: c.numbers.encode.ms(0.5) for c in self.cameras},
        }

    def welcome(self, viewer: Viewer) -> dict[str, Any]:
        """The first message to a viewer."""
        return {
            "type": "welcome",
            "version": 1,
            "role": viewer.role.name.lower(),
            "viewer": viewer.number,
            "cams": [self.describe(camera) for camera in self.cameras],
            "can": {"h264": True, "record": False, "snapshot": False},
            "blur": list(self._locked),
            "limits": {
                "text": protocol.MAX_TEXT_CHARS,
                "prompts": MAX_PROMPTS,
            },
            "now_us": now_us(),
        }

    def describe(self, camera: Camera) -> dict[str, Any]:
        """A camera for pages."""
        return {
            "id": camera.index,
            "name": camera.name,
            "live": camera.name in self.run.live_streams,
            "browser": False,
            "state": camera.state,
        }

    # -- prompts --------------------------------------------------------------------------

    async def _set_prompts(self, prompts: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._editor, self.run.set_prompts, prompts)

    def _prompts_changed(self) -> None:
        self.broadcast(self.prompts.state())

    async def apply_prompts(self) -> None:
        """Bring the model after the list; what goes wrong is told to every viewer."""
        try:
            await self.prompts.apply()
        except ApeStreamError as error:
            self.broadcast({"type": "error", "reason": one_line(error)})

    # -- viewers --------------------------------------------------------------------------

    async def serve(self, ws: web.WebSocketResponse, role: Role) -> None:
        """Talk with one viewer until it goes."""
        self._count += 1
        viewer = Viewer(self._count, role, ws)
        self.viewers.add(viewer)
        writer = self.spawn(viewer.write())
        try:
            await self._listen(viewer, ws)
        finally:
            self.viewers.discard(viewer)
            writer.cancel()
            self.refresh_all()

    async def _listen(self, viewer: Viewer, ws: web.WebSocketResponse) -> None:
        while not ws.closed:
            # Somebody who says nothing at first must not keep a seat.
            message = await ws.receive(None if viewer.greeted else _HELLO_S)
            if message.type is not web.WSMsgType.TEXT:
                return
            self._obey(viewer, message.data)

    def _obey(self, viewer: Viewer, text: str) -> None:
        number = None
        try:
            message = protocol.read_message(text)
            number = getattr(message, "id", None)
            if not viewer.greeted and not isinstance(message, protocol.Hello):
                raise UsageError("the first message is hello")
            self._handle(viewer, message)
        except ConflictError:
            viewer.send(json.dumps({"type": "conflict", "id": number, "rev": self.prompts.rev}))
            viewer.send(json.dumps(self.prompts.state()))
        except ApeStreamError as error:
            reason = one_line(error)
            viewer.send(json.dumps({"type": "error", "id": number, "reason": reason}))

    def _handle(self, viewer: Viewer, message: Any) -> None:
        match message:
            case protocol.Ack():
                viewer.acknowledge(message)
                self.refresh(self._camera(message.cam))
            case protocol.Hello():
                self._greet(viewer, message)
            case protocol.Visible():
                viewer.visible = message.visible
                self.refresh_all()
            case protocol.Ping():
                viewer.send(json.dumps({"type": "pong", "t": message.t, "now_us": now_us()}))
            case protocol.Subscribe():
                camera = self._camera(message.cam)
                viewer.subscribe(message)
                if message.codec == "h264":
                    camera.want_key(viewer.watched[message.cam].variant.width)
                self.refresh(camera)
            case protocol.Unsubscribe():
                viewer.watched.pop(message.cam, None)
                self.refresh(self._camera(message.cam))
            case _:
                self._change(viewer, message)

    def _change(self, viewer: Viewer, message: Any) -> None:
        if viewer.role < Role.CONTROL:
            raise UsageError("this token may look, not change anything")
        if not viewer.may_edit():
            raise UsageError("too many changes within a second: wait a moment")
        match message:
            case protocol.PromptsSet():
                self.prompts.edit(message.ops, message.base_rev)
                viewer.send(json.dumps({"type": "ok", "id": message.id, "rev": self.prompts.rev}))
                self.spawn(self.apply_prompts())
            case _:
                raise UsageError("this server cannot do that")

    def _greet(self, viewer: Viewer, hello: protocol.Hello) -> None:
        viewer.greeted = True
        viewer.visible = hello.visible
        viewer.send(json.dumps(self.welcome(viewer)))
        viewer.send(json.dumps(self.prompts.state()))
        for camera in self.cameras:
            viewer.send(json.dumps(self.camera_state(camera)))

    def _camera(self, index: int) -> Camera:
        if not 0 <= index < len(self.cameras):
            raise UsageError(f"there is no camera {index}")
        return self.cameras[index]


def now_us() -> int:
    """Microseconds of the server's monotonic clock."""
    return time.monotonic_ns() // 1000
