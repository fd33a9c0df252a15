"""An answer as lines to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ape_stream.values.texts import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.index import Answer, AnswerTrack, Uncertain

__all__ = ["lines_of"]

_SHOWN: Final = 40
"""Most tracks that are listed; --json has all."""
_RANGES: Final = 4
"""Most ranges of time of a track."""
_NEAR_S: Final = 1.0
"""Uncertain frames closer together than this are one range."""


def lines_of(answer: Answer) -> Iterator[str]:
    """What was found, the best first; then what is not certain."""
    counts = answer.counts()
    for prompt, mode in zip(answer.prompts, answer.modes, strict=True):
        own = [track for track in answer.tracks if track.prompt == prompt]
        single = sum(track.id is None for track in own)
        note = "" if mode == "vocabulary" else f"  ({mode})"
        yield (
            f"{prompt.text}: {counted(len(own) - single, 'track')},"
            f" {counted(single, 'single region')},"
            f" {counted(counts[prompt.text], 'region')} in all{note}"
        )
    for track in answer.tracks[:_SHOWN]:
        yield _track(track)
    if len(answer.tracks) > _SHOWN:
        yield f"  ... and {len(answer.tracks) - _SHOWN} more; --json lists all"
    exact = "exact" if answer.exact else "not exact"
    yield f"searched {counted(answer.searched, 'frame')}; {exact}"
    yield from answer.notes
    for one in answer.missing:
        times = f"{_clock(one.info.start_s)} to {_clock(one.info.end_s)}"
        yield f"missing: {one.info.path}, {times}: {one.reason}"
    yield from _uncertain(answer)


def _track(track: AnswerTrack) -> str:
    best, ranges = track.best, track.ranges
    times = ", ".join(
        _clock(start) if start == end else f"{_clock(start)}-{_clock(end)}"
        for start, end in ranges[:_RANGES]
    )
    more = f" and {len(ranges) - _RANGES} more" if len(ranges) > _RANGES else ""
    name = f"track {track.id}" if track.id is not None else "single"
    return (
        f"  {float(track.scores[best]):.3f}  {track.prompt.text}  {track.video.name}  {name}"
        f"  {times}{more}  best at {_clock(track.frames[best].time_s)}"
        f" (frame {track.frames[best].index})"
    )


def _uncertain(answer: Answer) -> Iterator[str]:
    if not answer.recheck:
        return
    frames = counted(len(answer.recheck), "frame")
    yield f"{frames} may hold more; --recheck runs the network on them:"
    for one, last, count in _joined(answer.recheck)[:_SHOWN]:
        times = _clock(one.time_s) if count == 1 else f"{_clock(one.time_s)}-{_clock(last.time_s)}"
        yield f"  {one.video.name}  {times}  {counted(count, 'frame')}: {one.reason}"


def _joined(frames: tuple[Uncertain, ...]) -> list[tuple[Uncertain, Uncertain, int]]:
    """First, last and count of each run of frames that follow one another."""
    runs: list[tuple[Uncertain, Uncertain, int]] = []
    for one in frames:
        if runs:
            begin, last, count = runs[-1]
            if last.video.id == one.video.id and 0 <= one.time_s - last.time_s <= _NEAR_S:
                runs[-1] = begin, one, count + 1
                continue
        runs.append((one, one, 1))
    return runs


def _clock(time_s: float) -> str:
    """Seconds as m:ss.s, or h:mm:ss.s."""
    tenths = round(time_s * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"
