"""The report of `ape-stream bench live`: every bar of the page next to what was measured."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_nodes.benchmarks import report
from ape_nodes.web.bench import screen
from ape_nodes.web.bench.viewers import CODECS, RECORDED, SLOW, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_nodes.web.bench.screen import Shown
    from ape_nodes.web.bench.viewers import Line, Measured

__all__ = ["Bar", "bars", "live"]


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
    cost = {form: line.cpu_ms for form, line in of.items()}
    found = []
    for codec, most_ms in zip(CODECS, (4.0, 7.5), strict=True):
        four, one = cost[f"{codec}, 4 of 720p"], cost[f"{codec}, 1 of 720p"]
        encoder = of[f"{codec}, 1 of 720p"].encoder_ms or float("nan")
        found += [
            Bar(f"{codec}: CPU ms a frame, 4 viewers", four, most_ms),
            Bar(f"{codec}: the same, times one viewer", four / one, 1.25),
            Bar(f"{codec}: one viewer, times the encoder's own", one / encoder, 1.8),
        ]
    found += [
        Bar("next to a slow and a stopped viewer: share of images", (of[SLOW].fps or 0.0) / fps,
            0.97, least=True),
        Bar("the slow one: age p50 ms", of[SLOW].slow_age_ms_p50 or float("nan"), 500.0),
        Bar("a prompt added: images lost", measured.lost, 0.0),
        Bar(f"{RECORDED}, CPU ms", cost[RECORDED], 15.0),
    ]  # fmt: skip
    for row in measured.shown[: len(CODECS)]:
        found.append(Bar(f"{row.form}: encoded to shown, p50 ms", row.encoded_ms_p50, 30.0))
        found.append(Bar(f"{row.form}: encoded to shown, p95 ms", row.encoded_ms_p95, 40.0))
    for row in measured.shown[len(CODECS) :]:
        found.append(Bar(f"{row.form}: camera to shown, p50 ms", row.camera_ms_p50, 150.0))
        found.append(Bar(f"{row.form}: camera to shown, p95 ms", row.camera_ms_p95, 250.0))
    return found


def live(*, seconds: float, fps: float, as_json: bool) -> None:
    """Report the cost of the live page's server, ages and sizes, and every bar."""
    program = screen.browser()
    load = os.getloadavg()[0]
    measured = measure(seconds, fps, program=program)
    columns: dict[str, Callable[[Line], str]] = {
        "viewers": lambda line: line.form,
        "server CPU ms/frame": lambda line: f"{line.cpu_ms:.2f}",
        "the encoder's": lambda line: _shown(line.encoder_ms),
        "images/s": lambda line: _shown(line.fps),
        "age p50 ms": lambda line: _shown(line.age_ms_p50),
        "p95 ms": lambda line: _shown(line.age_ms_p95),
        "kB": lambda line: _shown(line.kilobytes),
        "slow viewer p50 ms": lambda line: _shown(line.slow_age_ms_p50),
    }
    report(measured.lines, columns, as_json=as_json)
    on_screen: dict[str, Callable[[Shown], str]] = {
        "on the screen": lambda row: row.form,
        "images/s": lambda row: _shown(row.fps),
        "encoded to shown p50 ms": lambda row: _shown(row.encoded_ms_p50),
        "p95 ms": lambda row: _shown(row.encoded_ms_p95),
        "camera to shown p50 ms": lambda row: _shown(row.camera_ms_p50),
        "p95 ms ": lambda row: _shown(row.camera_ms_p95),
    }
    if measured.shown:
        report(measured.shown, on_screen, as_json=as_json)
    of_bars: dict[str, Callable[[Bar], str]] = {
        "bar": lambda row: row.what,
        "measured": lambda row: f"{row.measured:.2f}",
        "must be": lambda row: f"{'at least' if row.least else 'at most'} {row.bar:g}",
    }
    report(bars(measured, fps), of_bars, as_json=as_json)
    about = {
        "prompt_known_ms": measured.known_ms, "load_before": load, "load_after": os.getloadavg()[0],
        "cores": os.cpu_count(), "browser": program,
    }  # fmt: skip
    if as_json:
        print(json.dumps(about))  # noqa: T201
        return
    print(f"a prompt added: known after {measured.known_ms:.0f} ms")  # noqa: T201
    print(  # noqa: T201
        f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores"
        + ("" if program else "; no chromium: ages on the screen were not measured")
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
