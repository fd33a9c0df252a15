"""The names that the package offers without an import of its modules."""

import subprocess
import sys

import pytest
import torch

import ape_model


def test_a_network_is_loaded_by_name():
    network = ape_model.load(device="cpu")
    assert isinstance(network, ape_model.Ape)
    with torch.inference_mode():
        features = network.encode_image(torch.zeros(1, 3, 64, 64))
    assert features.canvas == (64, 64)


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(ape_model, name).__name__ == name for name in ape_model.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nano'"):
        ape_model.Nano  # noqa: B018


def test_the_package_is_imported_without_torch():
    code = "import sys, ape_model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
