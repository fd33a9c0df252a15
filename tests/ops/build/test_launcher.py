"""Which launcher is chosen, and why."""

import warnings

import pytest
import torch

from ape_cuda_ops import doctor
from ape_cuda_ops.build import launcher, nvrtc
from ape_cuda_ops.errors import BackendError, CompileError


def refuse():
    raise BackendError("refused by the test")


@pytest.fixture
def here(monkeypatch):
    """A machine: does CuPy seem installed, and which launchers refuse to work there?"""

    def set_up(*, installed, refusing=()):
        monkeypatch.setattr(launcher, "find_spec", lambda _: object() if installed else None)
        for name, one in launcher.LAUNCHERS.items():
            action = refuse if name in refusing else lambda: None
            monkeypatch.setattr(one, "prepare", action)

    monkeypatch.delenv("APE_STREAM_LAUNCHER", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    launcher._choose.cache_clear()
    yield set_up
    launcher._choose.cache_clear()


@pytest.mark.parametrize(
    ("installed", "forced", "name", "why"),
    [
        (True, "", "cupy", "CuPy is installed"),
        (False, "", "driver", "CuPy is not installed"),
        (True, "driver", "driver", "APE_STREAM_LAUNCHER=driver"),
        (False, "cupy", "cupy", "APE_STREAM_LAUNCHER=cupy"),
    ],
)
def test_cupy_comes_first_where_it_is_installed(here, monkeypatch, installed, forced, name, why):
    here(installed=installed)
    monkeypatch.setenv("APE_STREAM_LAUNCHER", forced)
    choice = launcher.chosen()
    assert (choice.launcher.name, choice.why) == (name, why)
    assert choice.launcher is launcher.LAUNCHERS[name]
    assert doctor._launcher() == f"{name} ({why})"


def test_a_cupy_that_cannot_work_is_reported_and_the_driver_used(here):
    here(installed=True, refusing=["cupy"])
    with pytest.warns(UserWarning, match="CuPy cannot be used: refused by the test; kernels start"):
        assert launcher.chosen().launcher.name == "driver"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no second warning
        assert launcher.chosen().why == "CuPy cannot be used: refused by the test"


@pytest.mark.parametrize("name", ["cupy", "driver"])
def test_a_forced_launcher_that_cannot_work_is_an_error(here, monkeypatch, name):
    here(installed=True, refusing=[name])
    monkeypatch.setenv("APE_STREAM_LAUNCHER", name)
    with pytest.raises(BackendError, match="refused by the test"):
        launcher.chosen()


@pytest.mark.usefixtures("here")
def test_an_unknown_launcher_lists_what_exists(monkeypatch):
    monkeypatch.setenv("APE_STREAM_LAUNCHER", "nonsense")
    with pytest.raises(BackendError, match="'nonsense' does not exist: there is cupy, driver"):
        launcher.chosen()


def test_what_every_launcher_needs_is_not_blamed_on_cupy(here, monkeypatch):
    here(installed=True)

    def missing():
        raise CompileError("NVRTC cannot be loaded")

    monkeypatch.setattr(nvrtc, "version", missing)
    with pytest.raises(CompileError, match="NVRTC"):  # and no warning, which would be an error
        launcher.chosen()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="torch sees no CUDA device"):
        launcher.chosen()
    assert doctor._result(doctor._launcher) == "none: torch sees no CUDA device"
