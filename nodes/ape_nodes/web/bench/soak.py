"""`ape-stream bench live --soak`: whether ages and what the server holds stay flat.

A Chromium shows APE-Nano's results with their masks; each minute is one line of the report.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_nodes.benchmarks import Table, percentiles
from ape_nodes.web.bench import screen
from ape_stream.errors import ApeStreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import ClientWebSocketResponse

__all__ = ["Held", "Minute", "held", "live"]

MINUTE_S: Final = 60.0
"""At most what the page remembers (series.js)."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds, and has used."""

    resident_mb: float
    threads: int
    descriptors: int
    cpu_s: float
    waited_s: float
    """How long its threads waited for a processor: what other work cost it."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute."""

    until_s: float
    """Its end, seconds after the first image."""
    fps: float
    """Images a second on the screen."""
    camera_ms_p50: float
    """From the source's delivery to the screen."""
    camera_ms_p95: float
    camera_ms_max: float
    server: Held
    """At its end; seconds are of this minute."""
    page_mb: float
    """The heap of the page's scripts."""
    load: float


def held(pid: int) -> Held:
    """What a process holds now; Linux only."""
    process = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    # After the name, which may hold blanks: user and system ticks are the fields 14 and 15.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    waited_ns = sum(
        int(_read(task / "schedstat").split()[1]) for task in (process / "task").iterdir()
    )
    return Held(
        int(status["VmRSS"].split()[0]) / 1e3,
        int(status["Threads"]),
        len(list((process / "fd").iterdir())),
        ticks / os.sysconf("SC_CLK_TCK"),
        waited_ns / 1e9,
    )


def _read(path: Path) -> str:
    """What a file of a thread says; zeros where the thread has ended."""
    try:
        return path.read_text()
    except OSError:
        return "0 0"


async def _minutes(program: str, seconds: float, fps: float) -> AsyncIterator[Minute]:
    async with screen.nano(fps) as run, screen.tab(program, run.url) as socket:
        await screen.wait_for_image(socket)
        await screen.show(socket, codec="jpeg", mode="sync")
        started, before = time.monotonic(), held(run.pid)
        while (left_s := started + seconds - time.monotonic()) > 0:
            ages, length_s, page_mb = await _ages(socket, min(MINUTE_S, left_s))
            now = held(run.pid)
            server = replace(
                now,
                cpu_s=now.cpu_s - before.cpu_s,
                waited_s=max(0.0, now.waited_s - before.waited_s),
            )
            before = now
            p50, p95, _ = percentiles(ages)
            yield Minute(
                time.monotonic() - started, len(ages) / length_s, p50, p95, max(ages), server,
                page_mb, os.getloadavg()[0],
            )  # fmt: skip


async def _ages(
    socket: ClientWebSocketResponse, seconds: float
) -> tuple[list[float], float, float]:
    """Ages of the images of the next seconds, milliseconds; how long it was; the page's heap."""
    found = await screen.value(
        socket, f"const from = performance.now();"
        f" await new Promise((go) => setTimeout(go, {1e3 * seconds}));"
        " const ages = app.tiles[0].stream.images.samples.filter((s) => s.atMs >= from)"
        ".map((s) => s.stages.reduce((sum, ms) => sum + ms, 0));"
        " return [ages, performance.now() - from, performance.memory.usedJSHeapSize / 1e6]"
    )  # fmt: skip
    if not found or not found[0]:
        raise ApeStreamError(f"the page has drawn nothing within {seconds:g} s")
    ages, length_ms, page_mb = found
    return ages, length_ms / 1e3, page_mb


def live(*, seconds: float, fps: float, as_json: bool) -> None:
    """Report every minute as it ends.

    Args:
        seconds: How long.
        fps: Images a second of the camera.
        as_json: One JSON line for each minute.

    Raises:
        UsageError: there is no Chromium.
        ApeStreamError: the page shows nothing for a minute.
    """
    program = screen.browser()
    if program is None:
        raise UsageError("--soak watches the page: install chromium")
    columns: dict[str, Callable[[Minute], str]] = {
        "until s": lambda row: f"{row.until_s:.0f}",
        "images/s": lambda row: f"{row.fps:.2f}",
        "camera to shown p50 ms": lambda row: f"{row.camera_ms_p50:.1f}",
        "p95 ms": lambda row: f"{row.camera_ms_p95:.1f}",
        "max ms": lambda row: f"{row.camera_ms_max:.0f}",
        "server MB": lambda row: f"{row.server.resident_mb:.1f}",
        "threads": lambda row: str(row.server.threads),
        "descriptors": lambda row: str(row.server.descriptors),
        "CPU s": lambda row: f"{row.server.cpu_s:.1f}",
        "waited s": lambda row: f"{row.server.waited_s:.1f}",
        "page MB": lambda row: f"{row.page_mb:.1f}",
        "load": lambda row: f"{row.load:.1f}",
    }

    async def watch() -> None:
        table = Table(columns, as_json=as_json, first=8)
        async for minute in _minutes(program, seconds, fps):
            table.add(minute)

    asyncio.run(watch())
