import cv2
import numpy as np
import pytest
from results import made

import ape_stream
from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.testing import ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet


def test_plot_is_the_overlay_and_save_writes_it(tmp_path):
    result = made()
    assert np.array_equal(result.plot(), draw(result))
    result.save(tmp_path / "a.png")
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), result.plot())


def test_a_notebook_shows_the_overlay():
    shown = cv2.imdecode(np.frombuffer(made()._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(shown, made().plot())


@pytest.mark.parametrize("name", ["a.xyz", "missing/a.png"])
def test_what_cannot_be_saved_is_named(tmp_path, name):
    with pytest.raises(SinkError, match=r"a\.xyz|missing"):
        made().save(tmp_path / name)


def test_reprs_are_short_and_say_what_was_found():
    result = made()
    assert repr(result) == (
        "FrameResult(Frame('cam' #0 at 0.000 s, 120x90): 1 red apple, 1 dog's face, sleeping)"
    )
    assert repr(result.instances) == "Instances(2 in 120x90, tracked)"
    assert repr(result.instances.masks[0]).startswith("Mask(")
    assert len(repr(result.instances.masks[0])) < 60
    assert repr(made(found=0)).endswith(": nothing)")


def test_reprs_are_short_with_thousands_of_prompts():
    words = PromptSet.of([f"word {k}" for k in range(3000)])
    assert str(PromptSet.of("red apple, dog")) == "red apple, dog"
    assert str(words).startswith("word 0, word 1, ")
    assert str(words).endswith(" ... (3000 prompts)")
    model = ape_stream.load(OraclePerceiver())
    assert repr(model) == "LoadedModel(OraclePerceiver)"
    model.find(np.zeros((8, 8, 3), np.uint8), "red apple, dog")
    assert repr(model) == "LoadedModel(OraclePerceiver: red apple, dog)"
    run = ape_stream.open(ListSource(frames(1, size=(24, 16000))), words, model=OraclePerceiver())
    assert len(repr(run)) < 160
    assert len(repr(next(iter(run)))) < 160
