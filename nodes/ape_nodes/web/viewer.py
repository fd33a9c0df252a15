"""One WebSocket: what its page wants, what it has room for, and one task that writes to it.

Others only put messages into its queues and never wait for it. For each camera a viewer has a few
credits: messages that may be on their way, unacknowledged. Without a credit it is offered nothing,
so what it gets is as new as can be, however slowly it reads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientConnectionResetError, web

from ape_nodes.web.access import Role, rate_limit
from ape_nodes.web.encoding.images import WIDTHS, Variant, width_for
from ape_stream.stats import Durations

if TYPE_CHECKING:
    from ape_nodes.web.camera import Camera, Encoded
    from ape_nodes.web.protocol import Ack, Subscribe, View

__all__ = ["CREDITS", "EDITS_PER_S", "MASK_CREDITS", "Viewer"]

CREDITS: Final = {"jpeg": 2, "h264": 4, "sync": 2}
"""Images on their way to a viewer, by codec: one is drawn while the next comes; H.264 units are
small and cannot be left out one by one."""
MASK_CREDITS: Final = 2
EDITS_PER_S: Final = 5.0
WAITING: Final = CREDITS["h264"] + MASK_CREDITS
"""Binary messages that may wait for each camera: acknowledging what it has not read, or asking for
the camera again, gives a viewer no more."""
MAX_TEXTS: Final = 256
"""JSON messages that may wait for a viewer; one that reads none is closed."""
_SLOW_SHARE: Final = 0.5
_CALM_SHARE: Final = 0.9
_SLOW_S: Final = 3
_CALM_S: Final = 10
_LONGEST_AGE_MS: Final = 600_000.0
"""A page that says more is wrong, not slow."""


@dataclass(slots=True)
class _Watched:
    """A camera as one viewer sees it."""

    wish: Subscribe
    level: int = 0
    """Steps to smaller images that its connection needs."""
    images_out: int = 0
    masks_out: int = 0
    sent: int = 0
    """Images since the last look at how slow it is."""
    total: int = 0
    shown: Durations = field(default_factory=Durations)
    """Ages of images when they were drawn, as the page says."""
    slow_s: int = 0
    calm_s: int = 0
    last_s: float = 0.0
    serial: int = 0
    masks_serial: int = 0
    synced: bool = False
    """H.264: it has all units since a key frame."""
    variant: Variant = field(init=False)
    """What it is sent."""
    masks_variant: Variant = field(init=False)
    """The masks that it wants, apart from images."""

    def __post_init__(self) -> None:
        self.choose()

    def choose(self) -> None:
        """Choose the variant: one that is too slow for H.264 gets smaller JPEGs."""
        wish = self.wish
        codec = "sync" if wish.mode == "sync" else wish.codec
        if codec == "h264" and self.level:
            codec = "jpeg"
        self.variant = Variant(
            codec, width_for(wish.max_w, self.level), wish.view if codec == "sync" else "instances"
        )
        self.masks_variant = Variant("masks", view=wish.view)

    @property
    def has_credit(self) -> bool:
        """Whether one more image may be on its way."""
        return self.wish.video and self.images_out < CREDITS[self.variant.codec]

    @property
    def pause_s(self) -> float:
        """Seconds until the next image may be sent, by the rate that is wished."""
        if not self.wish.fps:
            return 0.0
        return max(0.0, self.last_s + 0.9 / self.wish.fps - time.monotonic())

    @property
    def room(self) -> bool:
        """Whether one more image may be sent now."""
        return self.has_credit and not self.pause_s

    @property
    def mask_room(self) -> bool:
        """Whether masks may be sent now."""
        live = self.wish.mode == "live"
        return self.wish.masks and live and self.masks_out < MASK_CREDITS


class Viewer:
    """One page.

    Args:
        number: Its own.
        role: What it may do.
        ws: Its socket.
        transport: What is below the socket; without one all messages go through `write`.
    """

    def __init__(
        self,
        number: int,
        role: Role,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport | None = None,
    ) -> None:
        self.number = number
        self.role = role
        self.visible = True
        self.greeted = False
        self.may_edit = rate_limit(EDITS_PER_S)
        self.watched: dict[int, _Watched] = {}
        self.dropped = 0
        """Messages that it had no room for."""
        self._ws = ws
        self._transport = transport
        self._texts: deque[str] = deque()
        self._binary: deque[Encoded] = deque()
        self._wake = asyncio.Event()
        self._over = False

    # -- what it wants --------------------------------------------------------------------

    def subscribe(self, wish: Subscribe) -> None:
        """Take a wish for a camera; what is on its way stays counted."""
        old = self.watched.get(wish.cam)
        new = _Watched(wish)
        if old is not None:
            new.images_out, new.masks_out, new.level = old.images_out, old.masks_out, old.level
            new.choose()
        self.watched[wish.cam] = new

    def acknowledge(self, ack: Ack) -> bool:
        """Give a credit back; returns whether there was none, so that it has new wants."""
        watched = self.watched.get(ack.cam)
        if watched is None:
            return False
        if ack.what == "masks":
            had = watched.mask_room
            watched.masks_out = max(0, watched.masks_out - 1)
            return not had
        had = watched.has_credit
        watched.images_out = max(0, watched.images_out - 1)
        if ack.age_ms is not None and 0 <= ack.age_ms < _LONGEST_AGE_MS:
            watched.shown.add(ack.age_ms / 1e3)
        return not had

    def wants(self, cam: int) -> list[Variant]:
        """What it has room for of a camera."""
        watched = self.watched.get(cam)
        if watched is None or not self.visible or self._full:
            return []
        wanted = [watched.masks_variant] if watched.mask_room else []
        if watched.room:
            wanted.append(watched.variant)
        return wanted

    def pause_s(self, cam: int) -> float:
        """Seconds until it wants an image that only the rate it wishes keeps back; 0 for none."""
        watched = self.watched.get(cam)
        return watched.pause_s if watched is not None and watched.has_credit else 0.0

    @property
    def views(self) -> set[View]:
        """What its masks show, whether or not there is room for them now."""
        wishes = [watched.wish for watched in self.watched.values()] if self.visible else []
        return {wish.view for wish in wishes if wish.masks or wish.mode == "sync"}

    # -- what it is given -----------------------------------------------------------------

    def offer(self, camera: Camera, message: Encoded) -> None:
        """Send a binary message if it is wanted and there is room."""
        watched = self.watched.get(camera.index)
        if watched is None or not self.visible:
            return
        if message.variant.codec == "masks":
            fresh = message.serial > watched.masks_serial
            wanted = message.variant == watched.masks_variant and not self._full
            if watched.mask_room and fresh and wanted:
                watched.masks_serial = message.serial
                watched.masks_out += 1
                self._push(message)
        elif message.variant == watched.variant and watched.wish.video:
            self._offer_image(camera, watched, message)

    def _offer_image(self, camera: Camera, watched: _Watched, message: Encoded) -> None:
        if message.serial <= watched.serial:
            return
        room = watched.room and not self._full
        if not room or not (message.key or watched.synced):
            # The units that follow cannot be decoded without this one.
            watched.synced = False
            self.dropped += 1
            if message.variant.codec == "h264" and room:
                camera.want_key(message.variant.width)
            return
        watched.synced = True
        watched.serial = message.serial
        watched.images_out += 1
        watched.sent += 1
        watched.total += 1
        watched.last_s = time.monotonic()
        self._push(message)

    def send(self, text: str) -> None:
        """Send JSON text."""
        if len(self._texts) >= MAX_TEXTS:  # it reads nothing
            self.end()
            return
        self._texts.append(text)
        self._wake.set()

    @property
    def _full(self) -> bool:
        return len(self._binary) >= WAITING * len(self.watched)

    def _push(self, message: Encoded) -> None:
        if (transport := self._free_transport) is not None:
            # Made once for all viewers, and given to the system at once: `write` would be woken,
            # and aiohttp would make a head for each and send it by itself.
            transport.write(message.frame)
            return
        self._binary.append(message)
        self._wake.set()

    @property
    def _free_transport(self) -> asyncio.Transport | None:
        """The transport, where nothing waits before it or in it."""
        transport = self._transport
        if transport is None or self._texts or self._binary or self._over or self._ws.closed:
            return None
        busy = transport.is_closing() or transport.get_write_buffer_size()
        return None if busy else transport

    def adapt(self, camera: Camera) -> None:
        """Once a second: smaller images for a viewer that keeps missing them, larger when calm."""
        watched = self.watched.get(camera.index)
        if watched is None:
            return
        sent, watched.sent = watched.sent, 0
        offered = camera.hz(results=watched.wish.mode == "sync")
        expected = min(offered, watched.wish.fps or offered)
        # Below two images a second a share says little.
        if not self.visible or not watched.wish.video or expected < 2:
            return
        share = sent / expected
        watched.slow_s = watched.slow_s + 1 if share < _SLOW_SHARE else 0
        watched.calm_s = watched.calm_s + 1 if share >= _CALM_SHARE else 0
        if watched.slow_s >= _SLOW_S and watched.level < len(WIDTHS) - 1:
            watched.level += 1
            watched.slow_s = watched.calm_s = 0
        elif watched.calm_s >= _CALM_S and watched.level:
            watched.level -= 1
            watched.calm_s = 0
        watched.choose()

    def numbers(self) -> dict[str, Any]:
        """What the page shows of its own connection, by camera."""
        return {
            str(cam): {
                "images": w.total,
                "level": w.level,
                "out": w.images_out,
                "age_ms_p50": w.shown.ms(0.5),
                "age_ms_p95": w.shown.ms(0.95),
            }
            for cam, w in self.watched.items()
        }

    # -- the task that writes -------------------------------------------------------------

    async def write(self) -> None:
        """Write until the viewer is ended or its connection is gone."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._texts or self._binary:
                    if self._texts:
                        await self._ws.send_str(self._texts.popleft())
                    if self._binary:
                        await self._ws.send_bytes(self._binary.popleft().message)
                if self._over:
                    await self._ws.close()
                    return
        except (ClientConnectionResetError, ConnectionError):
            return  # the tab was closed

    def end(self) -> None:
        """Close once what waits is sent."""
        self._over = True
        self._wake.set()
