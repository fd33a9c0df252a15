"""The lines of `ape-stream doctor` about kernels."""

from ape_cuda_ops import doctor


def test_the_doctor_names_backends_compilers_and_cache(monkeypatch):
    found = dict(doctor.findings())
    assert found["kernels on cpu"].split(";")[0] in {"cpp", "numba", "embedding_bag"}
    assert {"kernels on cuda", "c++ compiler", "nvrtc", "kernel cache"} <= set(found)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert dict(doctor.findings())["c++ compiler"].startswith("none: no C++ compiler")
