"""`async for` over a run: the event loop goes on, outputs are closed on every way out."""

import asyncio

import pytest

import ape_stream
from ape_stream.errors import PipelineError
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames


def opened(n=6, **options):
    source = ListSource(list(frames(n)), **options.pop("source", {}))
    sink = CollectSink()
    model = options.pop("model", OraclePerceiver())
    return ape_stream.open(source, "cup", model=model, outputs=sink), sink


def test_every_result_comes_while_the_event_loop_goes_on():
    async def main():
        run, sink = opened(model=OraclePerceiver(delay_s=0.02))
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        other = asyncio.create_task(tick())
        indexes = [result.frame.index async for result in run]
        other.cancel()
        return indexes, ticks, run.outcome, sink.closed

    indexes, ticks, outcome, closed = asyncio.run(main())
    assert indexes == [0, 1, 2, 3, 4, 5]
    assert ticks > 6
    assert (outcome, closed) == ("finished", 1)


def test_leaving_the_loop_early_closes_the_outputs():
    async def main():
        run, sink = opened(50)
        results = aiter(run)
        async for result in results:
            if result.frame.index == 2:
                break
        await results.aclose()
        return sink

    sink = asyncio.run(main())
    assert sink.closed == 1


def test_a_cancelled_task_stops_the_run_at_once():
    async def main():
        run, sink = opened(9, source={"period_s": 0.2})

        async def work():
            async for _ in run:
                pass

        task = asyncio.create_task(work())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sink, run

    sink, run = asyncio.run(main())
    assert sink.closed == 1
    assert run.outcome == "stopped"


def test_a_failure_is_raised_as_in_a_plain_loop():
    async def main():
        run, _ = opened(3, source={"error": RuntimeError("lens cap")})
        return [result async for result in run]

    with pytest.raises(PipelineError, match="lens cap"):
        asyncio.run(main())
