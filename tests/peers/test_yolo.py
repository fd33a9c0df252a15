"""YOLOE and YOLO-World are called as ultralytics documents it; the library is a stand-in here."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ape_peers import yolo
from ape_stream.errors import ModelError, PluginError
from ape_stream.plugins import make_model
from ape_stream.types import Frame, PromptSet


class Network:
    """Two regions, of the second and the first class."""

    def __init__(self, path):
        if "broken" in path:
            raise ValueError("no\nmodel")
        self.task = "segment" if "seg" in path else "detect"
        self.asked, self.options, self.count = [], None, 2

    def get_text_pe(self, texts):
        return f"vectors of {len(texts)}"

    def set_classes(self, *given):
        self.asked.append(given)

    def predict(self, image, **options):
        self.options = options
        boxes = SimpleNamespace(
            xyxy=torch.tensor([[1.0, 2, 5, 6], [0, 0, 4, 4]])[: self.count],
            conf=torch.tensor([0.9, 0.3])[: self.count],
            cls=torch.tensor([1.0, 0.0])[: self.count],
        )
        pixels = torch.zeros(2, *image.shape[:2])
        pixels[0, 3:5, 1:4] = 1
        pixels[1, 0, 0] = 1
        has_masks = self.task == "segment" and self.count > 0
        masks = SimpleNamespace(data=pixels) if has_masks else None
        return [SimpleNamespace(boxes=boxes, masks=masks)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    library = SimpleNamespace(YOLOE=Network, YOLOWorld=Network)
    monkeypatch.setitem(sys.modules, "ultralytics", library)
    for name in ("yoloe-seg.pt", "world.pt", "broken.pt"):
        (tmp_path / name).touch()
    return tmp_path


FRAME = Frame(np.zeros((12, 10, 3), np.uint8), 0, 0.0)
PROMPTS = PromptSet.of(["cat", "dog"])


def test_yoloe_gives_masks(folder):
    perceiver = make_model(f"yoloe:{folder}/yoloe-seg.pt", {"device": "cpu"})
    perceiver.prepare(PROMPTS)
    perceiver.prepare(PROMPTS)
    assert perceiver.network.asked == [(["cat", "dog"], "vectors of 2")]
    [found] = perceiver.perceive([FRAME])
    assert found.prompt_ids.tolist() == [1, 0]
    assert [(m.x, m.y, *m.bitmap.shape) for m in found.masks] == [(1, 3, 2, 3), (0, 0, 1, 1)]
    assert perceiver.network.options["retina_masks"]
    perceiver.network.count = 0
    [nothing] = perceiver.perceive([FRAME])
    assert nothing.masks == ()


def test_yolo_world_gives_boxes(folder):
    perceiver = make_model(f"yolo-world:{folder}/world.pt", {"device": "cpu", "threshold": 0.5})
    perceiver.prepare(PROMPTS)
    assert perceiver.network.asked == [(["cat", "dog"],)]
    [found] = perceiver.perceive([FRAME])
    assert found.boxes.tolist() == [[1, 2, 5, 6]]
    assert found.masks is None
    assert len(perceiver.rank([FRAME], 10)[0]) == 2


def test_what_is_missing_is_one_line(folder, monkeypatch):
    with pytest.raises(ModelError, match=r"no file absent\.pt"):
        make_model("yoloe:absent.pt", {})
    with pytest.raises(ModelError, match=r"cannot be read as YOLOE: no model$"):
        make_model(f"yoloe:{folder}/broken.pt", {})
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(PluginError, match=r"pip install 'ape-stream\[ultralytics\]'"):
        make_model(f"yoloe:{folder}/yoloe-seg.pt", {})


def test_the_library_is_not_imported_before_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)  # an import of it would fail
    source = Path(yolo.__file__).read_text(encoding="utf-8")
    exec(compile(source, yolo.__file__, "exec"), {"__name__": "ape_peers.again"})
