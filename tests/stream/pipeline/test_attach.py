"""What sinks may ask of a run."""

from ape_stream.pipeline import Pipeline
from ape_stream.sinks.one_stream import OneStream
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


class Page(CollectSink):
    """A sink that shows frames and changes the prompts."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def control(self, run):
        assert self.opened == 0
        self.run = run

    def see(self, frame):
        self.seen.append(frame)

    def write(self, result):
        super().write(result)
        if len(self.results) == 1:
            self.run.set_prompts(PromptSet.of("dog"))


def run(sources, sink, policy):
    pipeline = Pipeline(
        sources, OraclePerceiver(delay_s=0.01), PromptSet.of("cat"), sinks=[sink], policy=policy
    )
    for _ in pipeline:
        pass
    return pipeline.stats()


def test_a_sink_sees_frames_that_the_model_never_gets():
    page = Page()
    stats = run([ListSource(frames(40), live=True, period_s=0.001)], page, "newest")
    assert [frame.index for frame in page.seen] == list(range(40))
    assert stats.published < 40
    written = {result.frame.index: result.frame for result in page.results}
    shown = {frame.index: frame for frame in page.seen}
    assert all(shown[index] is frame for index, frame in written.items())
    assert all(frame.captured_ns > 0 for frame in page.seen)


def test_a_sink_controls_the_run():
    page = Page()
    run([ListSource(frames(9))], page, "every")
    assert page.results[0].prompts.texts == ("cat",)
    assert page.results[-1].prompts.texts == ("dog",)


def test_a_sink_of_one_stream_sees_that_stream_only():
    page = Page()
    sources = [ListSource(frames(4, stream=name), name=name) for name in ("a", "b")]
    run(sources, OneStream(page, "b"), "every")
    assert [(frame.stream, frame.index) for frame in page.seen] == [("b", k) for k in range(4)]
    assert page.run.prompts.texts == ("dog",)
