"""The report of `ape-stream bench live`: every bar of the page next to what was measured."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import typer

from ape_nodes.benchmarks import Table, report
from ape_nodes.web.bench import screen
from ape_nodes.web.bench.measured import Line, Measured
from ape_nodes.web.bench.viewers import CODECS, RECORDED, SLOW, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_nodes.web.bench.screen import Shown
    from ape_nodes.web.bench.viewers import Codec

__all__ = ["Bar", "bars", "live"]

MOST_MS: Final[dict[Codec, float]] = {"jpeg": 4.0, "h264": 7.5}
"""CPU time of a frame for four viewers."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One number that the page is held to."""

    what: str
    measured: float
    bar: float
    least: bool = False
    """Whether it must be reached, not kept below."""


def bars(measured: Measured, fps: float) -> list[Bar]:
    """What was measured, next to what it is held to.

    Args:
        measured: One run.
        fps: Images a second of its camera.
    """
    of = {line.form: line for line in measured.lines}
    found = [bar for codec in CODECS for bar in _of_codec(codec, of)]
    if (slow := of.get(SLOW)) is not None:
        found += [
            Bar("next to a slow and a stopped viewer: share of images", (slow.fps or 0.0) / fps,
                0.97, least=True),
            Bar("the slow one: age p50 ms", slow.slow_age_ms_p50 or float("nan"), 500.0),
        ]  # fmt: skip
    if measured.lost is not None:
        found.append(Bar("a prompt added: images lost", measured.lost, 0.0))
    if (recorded := of.get(RECORDED)) is not None:
        found.append(Bar(f"{RECORDED}, CPU ms", recorded.cpu_ms, 15.0))
    for row in measured.shown[: len(CODECS)]:
        found.append(Bar(f"{row.form}: encoded to shown, p50 ms", row.encoded_ms_p50, 30.0))
        found.append(Bar(f"{row.form}: encoded to shown, p95 ms", row.encoded_ms_p95, 40.0))
    for row in measured.shown[len(CODECS) :]:
        found.append(Bar(f"{row.form}: camera to shown, p50 ms", row.camera_ms_p50, 150.0))
        found.append(Bar(f"{row.form}: camera to shown, p95 ms", row.camera_ms_p95, 250.0))
    return found


def _of_codec(codec: Codec, of: dict[str, Line]) -> list[Bar]:
    four, one = of.get(f"{codec}, 4 of 720p"), of.get(f"{codec}, 1 of 720p")
    if four is None or one is None:
        return []
    encoder_ms = one.encoder_ms or float("nan")
    return [
        Bar(f"{codec}: CPU ms a frame, 4 viewers", four.cpu_ms, MOST_MS[codec]),
        Bar(f"{codec}: the same, times one viewer", four.cpu_ms / one.cpu_ms, 1.25),
        Bar(f"{codec}: one viewer, times the encoder's own", one.cpu_ms / encoder_ms, 1.8),
    ]


def live(*, seconds: float, fps: float, as_json: bool) -> None:
    """Report the cost of the live page's server, ages and sizes, and every bar.

    Raises:
        ApeStreamError: the page shows nothing; what was measured before has been printed.
    """
    program = screen.browser()
    load = os.getloadavg()[0]
    viewers = Table(_VIEWERS, as_json=as_json, first=_FIRST)
    on_screen = Table(_ON_SCREEN, as_json=as_json, first=_FIRST)
    measured = Measured(
        lambda row: viewers.add(row) if isinstance(row, Line) else on_screen.add(row)
    )
    try:
        measure(measured, seconds, fps, program=program)
    finally:
        report(bars(measured, fps), _BARS, as_json=as_json, first=_FIRST)
        _about(measured, load, program, as_json=as_json)


def _about(measured: Measured, load: float, program: str | None, *, as_json: bool) -> None:
    """What else there is to know."""
    now, cores = os.getloadavg()[0], os.cpu_count()
    if as_json:
        about = {
            "prompt_known_ms": measured.known_ms, "load_before": load, "load_after": now,
            "cores": cores, "browser": program,
        }  # fmt: skip
        typer.echo(json.dumps(about))
        return
    if measured.known_ms is not None:
        typer.echo(f"a prompt added: known after {measured.known_ms:.0f} ms")
    typer.echo(
        f"load average {load:.1f} before, {now:.1f} after, {cores} cores"
        + ("" if program else "; no chromium: ages on the screen were not measured")
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


_FIRST: Final = 58
"""Characters of the longest bar."""
_VIEWERS: Final[dict[str, Callable[[Line], str]]] = {
    "viewers": lambda line: line.form,
    "server CPU ms/frame": lambda line: f"{line.cpu_ms:.2f}",
    "the encoder's": lambda line: _shown(line.encoder_ms),
    "images/s": lambda line: _shown(line.fps),
    "age p50 ms": lambda line: _shown(line.age_ms_p50),
    "p95 ms": lambda line: _shown(line.age_ms_p95),
    "kB": lambda line: _shown(line.kilobytes),
    "slow viewer p50 ms": lambda line: _shown(line.slow_age_ms_p50),
}
_ON_SCREEN: Final[dict[str, Callable[[Shown], str]]] = {
    "on the screen": lambda row: row.form,
    "images/s": lambda row: _shown(row.fps),
    "encoded to shown p50 ms": lambda row: _shown(row.encoded_ms_p50),
    "p95 ms": lambda row: _shown(row.encoded_ms_p95),
    "camera to shown p50 ms": lambda row: _shown(row.camera_ms_p50),
    "p95 ms ": lambda row: _shown(row.camera_ms_p95),
}
_BARS: Final[dict[str, Callable[[Bar], str]]] = {
    "bar": lambda row: row.what,
    "measured": lambda row: f"{row.measured:.2f}",
    "must be": lambda row: f"{'at least' if row.least else 'at most'} {row.bar:g}",
}
