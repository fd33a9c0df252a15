"""What one page says, and what is done about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType

from ape_nodes.web import browser_camera, protocol
from ape_nodes.web.access import Role, rate_limit
from ape_nodes.web.hub import now_us
from ape_nodes.web.prompts import ConflictError, one_line
from ape_nodes.web.viewer import Viewer
from ape_stream.errors import ApeStreamError, UsageError

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Coroutine

    from aiohttp import web

    from ape_nodes.web.camera import Camera
    from ape_nodes.web.hub import Hub

__all__ = ["Conversation"]

HELLO_S: Final = 10.0
"""Seconds that a new connection has to say hello: who says nothing must not keep a seat."""
MAX_TEXT: Final = 65_536
IMAGES_PER_S: Final = 60.0
QUESTIONS_PER_S: Final = 50.0
"""Messages other than acknowledgements."""


class Conversation:
    """One viewer's socket, from its first message to its last.

    Args:
        hub: What it looks at.
        ws: The socket.
        role: What it may do.
        transport: What is below the socket; None where it is closed already.
    """

    count = 0

    def __init__(
        self, hub: Hub, ws: web.WebSocketResponse, role: Role, transport: Transport | None = None
    ) -> None:
        Conversation.count += 1
        self._hub = hub
        self._ws = ws
        self._viewer = Viewer(Conversation.count, role, ws, transport)
        self._may_ask = rate_limit(QUESTIONS_PER_S)
        self._may_show = rate_limit(IMAGES_PER_S)
        self._sending: set[int] = set()

    async def run(self) -> None:
        """Talk until the page goes."""
        hub, viewer = self._hub, self._viewer
        hub.viewers.add(viewer)
        writer = hub.spawn(viewer.write())
        try:
            await self._listen()
        except TimeoutError:
            return
        finally:
            hub.viewers.discard(viewer)
            writer.cancel()
            hub.refresh_all()

    async def _listen(self) -> None:
        while not self._ws.closed:
            message = await self._ws.receive(None if self._viewer.greeted else HELLO_S)
            if message.type is WSMsgType.TEXT and len(message.data) <= MAX_TEXT:
                self._obey(message.data)
            elif message.type is WSMsgType.BINARY:
                self._show(message.data)
            else:
                return

    def _answer(self, kind: str, **fields: Any) -> None:
        self._viewer.send(json.dumps({"type": kind, **fields}))

    def _obey(self, text: str) -> None:
        number = None
        try:
            message = protocol.read_message(text)
            number = getattr(message, "id", None)
            if not self._viewer.greeted and not isinstance(message, protocol.Hello):
                raise UsageError("the first message is hello")
            if not isinstance(message, protocol.Ack) and not self._may_ask():
                raise UsageError("too many messages within a second: wait a moment")
            self._handle(message)
        except ApeStreamError as error:
            self._refuse(number, error)

    def _refuse(self, number: int | None, error: ApeStreamError) -> None:
        if isinstance(error, ConflictError):
            self._answer("conflict", id=number, reason=one_line(error))
            self._viewer.send(json.dumps(self._hub.prompts.state()))
            for camera in self._hub.cameras:
                self._viewer.send(json.dumps(self._hub.zones_state(camera)))
        else:
            self._answer("error", id=number, reason=one_line(error))

    def _handle(self, message: Any) -> None:
        hub, viewer = self._hub, self._viewer
        match message:
            case protocol.Ack():
                if viewer.acknowledge(message):
                    hub.refresh(self._camera(message.cam))
            case protocol.Hello():
                self._greet(message)
            case protocol.Visible():
                viewer.visible = message.visible
                hub.refresh_all()
            case protocol.Ping():
                self._answer("pong", t=message.t, now_us=now_us())
            case protocol.Subscribe():
                self._subscribe(message)
            case protocol.Unsubscribe():
                viewer.watched.pop(self._camera(message.cam).index, None)
                hub.refresh_all()
            case _:
                self._change(message)

    def _subscribe(self, wish: protocol.Subscribe) -> None:
        viewer, hub = self._viewer, self._hub
        camera = self._camera(wish.cam)
        if wish.view != "instances" and not hub.run.paints_maps:
            raise UsageError(f"this model has no {wish.view} view")
        viewer.subscribe(wish)
        watched = viewer.watched[wish.cam]
        if wish.codec == "h264":
            camera.want_key(watched.variant.width)
        camera.repeat(watched.variant, watched.masks_variant)
        hub.refresh_all()
        hub.show_again(camera)

    def _change(self, message: Any) -> None:
        viewer, hub = self._viewer, self._hub
        if viewer.role < Role.CONTROL:
            raise UsageError("this token may look, not change anything")
        if not viewer.may_edit():
            raise UsageError("too many changes within a second: wait a moment")
        match message:
            case protocol.PromptsSet():
                hub.prompts.edit(message.ops, message.base_rev)
                self._answer("ok", id=message.id, rev=hub.prompts.rev)
                hub.spawn(hub.apply_prompts())
            case protocol.ZonesSet():
                camera = self._camera(message.cam)
                rev = hub.set_zones(camera, message.zones, message.base_rev)
                self._answer("ok", id=message.id, rev=rev)
            case protocol.Snapshot():
                self._later(message.id, self._snapshot(message))
            case protocol.Record():
                self._later(message.id, self._record(message))
            case protocol.Camera():
                self._become_camera(message)

    def _later(self, number: int | None, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        async def answer() -> None:
            try:
                self._answer("ok", id=number, **await work)
            except ApeStreamError as error:
                self._refuse(number, error)

        self._hub.spawn(answer())

    async def _snapshot(self, message: protocol.Snapshot) -> dict[str, Any]:
        return {"file": await self._hub.snapshot(self._camera(message.cam))}

    async def _record(self, message: protocol.Record) -> dict[str, Any]:
        await self._hub.record(self._camera(message.cam), on=message.on, overlay=message.overlay)
        return {"recording": message.on}

    def _greet(self, hello: protocol.Hello) -> None:
        viewer, hub = self._viewer, self._hub
        viewer.greeted = True
        viewer.visible = hello.visible
        viewer.send(json.dumps(hub.welcome(viewer)))
        viewer.send(json.dumps(hub.prompts.state()))
        for camera in hub.cameras:
            viewer.send(json.dumps(hub.camera_state(camera)))
            viewer.send(json.dumps(hub.zones_state(camera)))

    def _camera(self, index: int) -> Camera:
        return self._hub.camera(index)

    # -- a page that is a camera ----------------------------------------------------------

    def _become_camera(self, message: protocol.Camera) -> None:
        camera = self._camera(message.cam)
        if browser_camera.by_name(camera.name) is None:
            raise UsageError(f"{camera.name} is no browser's camera")
        if message.on:
            self._sending.add(camera.index)
        else:
            self._sending.discard(camera.index)
        self._answer("ok", id=message.id)

    def _show(self, data: bytes) -> None:
        """Take an image of the page's own camera."""
        try:
            head, _, _, image = protocol.unpack(data)
        except UsageError as error:
            self._refuse(None, error)
            return
        if head.kind != protocol.CAMERA_IMAGE or head.cam not in self._sending:
            self._answer("error", id=None, reason="say `camera` before you send images of one")
            return
        source = browser_camera.by_name(self._camera(head.cam).name)
        if source is not None and self._may_show():
            source.offer(image, head.captured_us)
        # In any case: the page sends the next one when it has this.
        self._answer("ack", cam=head.cam, seq=head.seq, now_us=now_us())
