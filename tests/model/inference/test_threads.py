"""A process that was forked after the model ran can run it, too."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
import torch
import ape_model.perceiver

torch.set_num_threads(2)
weights = torch.rand(512, 512)
before = weights @ weights            # starts OpenMP's threads, which a fork does not copy
child = os.fork()
if child == 0:
    signal.alarm(20)                  # ends a child that hangs
    same = torch.equal(weights @ weights, before) or torch.allclose(weights @ weights, before)
    weights.softmax(0)
    os._exit(0 if same and torch.get_num_threads() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_computes_with_one_thread():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=False, timeout=120)
    assert done.returncode == 0
