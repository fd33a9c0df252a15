import numpy as np
import pytest
from PIL import Image

from ape_stream.errors import UsageError
from ape_stream.sources.memory import MemorySource
from ape_stream.types import Frame


def grey(value):
    return np.full((8, 12, 3), value, np.uint8)


def test_images_get_index_and_time():
    with MemorySource([grey(1), Image.new("RGB", (12, 8))], fps=4, name="mine") as source:
        frames = list(source)
        assert source.frame_count == 2
    assert [(f.index, f.time_s, f.stream) for f in frames] == [(0, 0.0, "mine"), (1, 0.25, "mine")]
    assert not frames[1].image.any()


def test_ready_frames_keep_their_index_and_time_under_the_streams_name():
    given = [Frame(grey(1), 7, 3.5, "other", captured_ns=9)]
    frame = next(iter(MemorySource(given, name="mine")))
    assert (frame.index, frame.time_s, frame.stream, frame.captured_ns) == (7, 3.5, "mine", 9)


def test_a_generator_is_read_one_image_at_a_time_and_no_further_after_closing():
    taken = []

    def images():
        for value in range(9):
            taken.append(value)
            yield grey(value)

    with MemorySource(images()) as source:
        assert source.frame_count is None
        frames = iter(source)
        next(frames)
        assert taken == [0]
    assert list(frames) == []
    assert len(taken) == 2


def test_an_item_that_is_no_image_is_refused():
    with pytest.raises(UsageError, match="int"):
        list(MemorySource([3]))
    with pytest.raises(ValueError, match="fps"):
        MemorySource([], fps=0)
