"""The addresses for scripts: the same as the page can do, with the same rights."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from ape_nodes.metrics.collector import CONTENT_TYPE, exposition
from ape_nodes.web.access import Role
from ape_nodes.web.protocol import PromptOp, Zone
from ape_stream.errors import UsageError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from ape_nodes.web.access import Access
    from ape_nodes.web.camera import Camera
    from ape_nodes.web.hub import Hub

__all__ = ["ROUTES", "Answer", "Route", "body"]

BODY_S: Final = 10.0
"""Seconds for the body of a request."""
Answer = Callable[[web.Request, "Hub", "Access"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One address, and who may use it."""

    method: str
    path: str
    needs: Role
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Edit:
    """The body of POST /api/prompts."""

    ops: tuple[PromptOp, ...]
    base_rev: int | None = None


@dataclass(frozen=True, slots=True)
class _Whole:
    """The body of PUT /api/prompts."""

    prompts: tuple[Any, ...]
    base_rev: int | None = None


@dataclass(frozen=True, slots=True)
class _Zones:
    """The body of PUT /api/cams/{id}/zones."""

    zones: tuple[Zone, ...]
    base_rev: int | None = None


@dataclass(frozen=True, slots=True)
class _Record:
    """The body of POST /api/cams/{id}/record."""

    on: bool
    overlay: bool = True


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        UsageError: it is none.
        web.HTTPRequestTimeout: it does not come.
    """
    try:
        async with asyncio.timeout(BODY_S):
            given = await request.json()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY_S:g} s") from error
    except (ValueError, RecursionError, LookupError) as error:  # LookupError: an unknown charset
        raise UsageError(f"the body is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError("the body is a JSON object")
    return given


def _camera(request: web.Request, hub: Hub) -> Camera:
    number = request.match_info["cam"]
    return hub.camera(int(number) if number.isdecimal() and len(number) < 6 else -1)


def _prompt_state(hub: Hub) -> dict[str, Any]:
    state = hub.prompts.state()
    return {"rev": state["rev"], "prompts": state["prompts"]}


async def _get_prompts(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """The prompts with their ids and states."""
    return web.json_response(_prompt_state(hub))


async def _edit_prompts(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """Some changes; answered when the model has them."""
    edit = read_table(_Edit, await body(request), "the body", error=UsageError)
    hub.prompts.edit(edit.ops, edit.base_rev)
    await hub.prompts.apply()
    return web.json_response(_prompt_state(hub))


async def _put_prompts(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """All prompts in place of the present ones; answered when the model has them."""
    whole = read_table(_Whole, await body(request), "the body", error=UsageError)
    rows = tuple({"text": row} if isinstance(row, str) else row for row in whole.prompts)
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError("a prompt is a text or a table")
    hub.prompts.edit([PromptOp("replace", prompts=rows)], whole.base_rev)
    await hub.prompts.apply()
    return web.json_response(_prompt_state(hub))


async def _cams(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """The cameras."""
    return web.json_response(
        {"cams": [{**hub.describe(c), **hub.camera_state(c), "type": "cam"} for c in hub.cameras]}
    )


async def _image(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """The newest image with its overlay."""
    data = await hub.jpeg(_camera(request, hub))
    return web.Response(body=data, content_type="image/jpeg")


async def _get_zones(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """The zones of a camera, with counts."""
    return web.json_response(_zone_state(hub, _camera(request, hub)))


async def _put_zones(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """All zones of a camera in place of the present ones."""
    camera = _camera(request, hub)
    given = read_table(_Zones, await body(request), "the body", error=UsageError)
    hub.set_zones(camera, given.zones, given.base_rev)
    return web.json_response(_zone_state(hub, camera))


def _zone_state(hub: Hub, camera: Camera) -> dict[str, Any]:
    return {k: v for k, v in hub.zones_state(camera).items() if k in ("rev", "zones", "counts")}


async def _snapshot(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """Write the newest image into the folder."""
    return web.json_response({"file": await hub.snapshot(_camera(request, hub))})


async def _record(request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """Start or stop a recording."""
    wish = read_table(_Record, await body(request), "the body", error=UsageError)
    await hub.record(_camera(request, hub), on=wish.on, overlay=wish.overlay)
    return web.json_response({"recording": wish.on})


async def _stats(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """The run's statistics."""
    return web.json_response(hub.stats())


async def _stop(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """End the run."""
    hub.run.stop()
    return web.json_response({"status": "stopped"})


async def _metrics(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """For Prometheus."""
    return web.Response(body=exposition(hub.registry), headers={"Content-Type": CONTENT_TYPE})


async def _healthz(_request: web.Request, hub: Hub, _access: Access) -> web.StreamResponse:
    """200 while every live camera delivers, 503 otherwise; names nothing."""
    live = set(hub.run.live_streams)
    silent = sum(camera.state != "up" for camera in hub.cameras if camera.name in live)
    text = "ok" if not silent else f"{silent} of {len(live)} cameras are silent"
    return web.Response(text=text, status=503 if silent else 200)


ROUTES: Final = [
    Route("GET", "/api/prompts", Role.VIEW, _get_prompts),
    Route("POST", "/api/prompts", Role.CONTROL, _edit_prompts),
    Route("PUT", "/api/prompts", Role.CONTROL, _put_prompts),
    Route("GET", "/api/cams", Role.VIEW, _cams),
    Route("GET", "/api/cams/{cam}/snapshot.jpg", Role.VIEW, _image),
    Route("GET", "/api/cams/{cam}/zones", Role.VIEW, _get_zones),
    Route("PUT", "/api/cams/{cam}/zones", Role.CONTROL, _put_zones),
    Route("POST", "/api/cams/{cam}/snapshot", Role.CONTROL, _snapshot),
    Route("POST", "/api/cams/{cam}/record", Role.CONTROL, _record),
    Route("GET", "/api/stats", Role.VIEW, _stats),
    Route("POST", "/api/stop", Role.CONTROL, _stop),
    Route("GET", "/metrics", Role.VIEW, _metrics),
    Route("GET", "/healthz", Role.NOBODY, _healthz),
]
