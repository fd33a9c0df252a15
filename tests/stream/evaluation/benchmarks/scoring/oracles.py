"""The evaluation code of COCO and LVIS, as it is published."""

import contextlib
import copy
import functools
import importlib.util
import io
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

TYPES = {"box": "bbox", "mask": "segm"}


def coco_oracle(file, results, kind):
    """The twelve figures of pycocotools, 0..1; -1 where there is nothing to judge."""
    truth = COCO()
    truth.dataset = copy.deepcopy(file)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(_of_kind(results, kind)), TYPES[kind])
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


def lvis_oracle(file, results, kind, detections):
    """The figures of the lvis package by name, 0..1; -1 where there is nothing to judge."""
    package = _lvis()
    truth = package.lvis.LVIS.__new__(package.lvis.LVIS)
    truth.logger = logging.getLogger("lvis")
    truth.dataset = copy.deepcopy(file)
    truth._create_index()
    found = package.results.LVISResults(truth, _of_kind(results, kind), max_dets=detections)
    judge = package.eval.LVISEval(truth, found, TYPES[kind])
    judge.params.max_dets = detections
    judge.run()
    return judge.get_results()


def _of_kind(results, kind):
    # The libraries take the size of a mask from its box where there is one.
    other = "bbox" if kind == "mask" else "segmentation"
    return [{key: value for key, value in one.items() if key != other} for one in results]


@functools.cache
def _lvis():
    """The package on a numpy that has no np.float, without its drawing and its logging setup."""
    found = importlib.util.find_spec("lvis")
    if found is None:
        pytest.skip("the package lvis is not installed")
    package = types.ModuleType("lvis")
    package.__path__ = [str(Path(found.origin).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lvis", package)
        for name in ("lvis", "results", "eval"):
            setattr(package, name, importlib.import_module(f"lvis.{name}"))
    package.eval.np = types.SimpleNamespace(**vars(np), float=float)
    return package
