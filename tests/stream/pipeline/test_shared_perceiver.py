import threading

import pytest

from ape_stream.errors import ModelError
from ape_stream.pipeline import Pipeline
from ape_stream.pipeline.shared_perceiver import SharedPerceiver
from ape_stream.sources.push import PushSource
from ape_stream.stats import DeviceMemory
from ape_stream.testing import OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_cameras_share_one_model_each_with_its_own_prompts():
    shared, made = SharedPerceiver(), []

    def make():
        made.append(OraclePerceiver())
        return made[-1]

    for _ in range(2):
        shared.load(make)
    assert len(made) == 1
    handles = [shared.handle(), shared.handle()]
    handles[0].prepare(PromptSet.of("cat"))
    handles[1].prepare(PromptSet.of("dog, bird"))
    (frame,) = frames(1)
    assert [len(handle.perceive([frame])[0]) for handle in handles * 2] == [1, 2, 1, 2]
    shared.release()
    handles[0].perceive([frame])
    shared.release()
    with pytest.raises(ModelError, match="freed"):
        handles[0].perceive([frame])


def test_the_memory_of_the_shared_model_is_reported_while_it_works():
    class OnGpu(OraclePerceiver):
        def device_memory(self):
            return DeviceMemory("cuda:0", 1, 2, 3)

    shared = SharedPerceiver()
    handle = shared.handle()
    assert handle.device_memory() is None  # nothing is loaded yet
    shared.load(OnGpu)
    with shared._lock:  # as during a frame
        assert handle.device_memory() == DeviceMemory("cuda:0", 1, 2, 3)


def test_a_pushed_pipeline_stops_and_leaves_no_thread():
    source, shared, seen = PushSource("cam"), SharedPerceiver(), threading.Event()
    shared.load(OraclePerceiver)
    with Pipeline([source], shared.handle(), PromptSet.of("cat")) as run:
        loop = threading.Thread(target=lambda: [seen.set() for _ in run])
        loop.start()
        source.put(next(frames(1, stream="cam")))
        assert seen.wait(10)
        run.stop()
        loop.join(5)
        assert not loop.is_alive()
