"""The checks of graph replay and upload, on stand-ins that fail as a GPU might."""

import numpy as np
import pytest
import torch

from ape_cuda_ops import device_check as record
from ape_model.inference.device_check import graphs_work, uploader

CPU = torch.device("cpu")
FRAME = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.fixture(autouse=True)
def _own_records(tmp_path, monkeypatch):
    monkeypatch.setenv("APE_STREAM_CACHE", str(tmp_path))


def eager(call, _):
    return call


def stale(call, inputs):
    """A replay that never reads its new inputs."""
    output = call(*inputs)
    return lambda *_: output


def refused(*_):
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


def test_a_right_replay_is_used_and_recorded():
    assert graphs_work(CPU, eager)
    assert [(r.check, r.state) for r in record.records(CPU)] == [("CUDA graph", "passed")]


@pytest.mark.parametrize(
    ("capture", "why"), [(stale, "replayed CUDA graph differs"), (refused, "is capturing$")]
)
def test_a_broken_replay_is_not_used(capture, why):
    with pytest.warns(UserWarning, match=f"kernels start one by one: the CUDA graph check.*{why}"):
        assert not graphs_work(CPU, capture)
    with pytest.warns(UserWarning, match="failed on cpu before"):
        assert not graphs_work(CPU, eager)


class Ring:
    """Buffers that take turns."""

    def __init__(self, _, slots=8):
        self.buffers, self.turn = [torch.zeros(1) for _ in range(slots)], 0

    def __call__(self, frame):
        slot, self.turn = self.turn, (self.turn + 1) % len(self.buffers)
        buffer = self.buffers[slot]
        buffer.resize_(frame.shape).copy_(torch.from_numpy(frame))
        return buffer


def test_a_right_upload_is_used():
    assert isinstance(uploader(CPU, Ring), Ring)


def test_an_upload_that_reuses_a_buffer_too_early_is_replaced_by_a_copy():
    with pytest.warns(UserWarning, match="without pinned memory: the upload check.*failed"):
        upload = uploader(CPU, lambda device: Ring(device, slots=2))
    assert torch.equal(upload(FRAME), torch.from_numpy(FRAME))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_this_gpu_passes():
    device = torch.device("cuda", 0)
    assert graphs_work(device)
    uploader(device)
    states = {r.check: r.state for r in record.records(device)}
    assert states == {"kernels": "passed", "CUDA graph": "passed", "upload": "passed"}
