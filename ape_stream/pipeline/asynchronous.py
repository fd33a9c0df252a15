"""Results for `async for`: the same loop in one thread of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ape_stream.types import FrameResult

__all__ = ["results_of"]


async def results_of(
    results: Iterator[FrameResult], stop: Callable[[], None]
) -> AsyncIterator[FrameResult]:
    """Yield the results without blocking the event loop.

    Sinks run in that one thread, as they would in the caller's. Leaving the loop early, or
    cancelling the task, stops the run and closes its outputs.

    Args:
        results: The run's own iterator.
        stop: Ends the run from any thread.
    """
    import asyncio  # noqa: PLC0415 (a fifth of the package's import time, for those who use it)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "results") as thread:
        try:
            # `next` with a default: a StopIteration cannot be set on a future.
            while (result := await loop.run_in_executor(thread, next, results, None)) is not None:
                yield result
        finally:
            stop()  # so that a result that is still waited for ends at once
            close = getattr(results, "close", lambda: None)
            # Shielded: a cancelled task still closes its outputs.
            await asyncio.shield(loop.run_in_executor(thread, close))
