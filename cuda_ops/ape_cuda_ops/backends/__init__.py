"""One implementation of the operators per file; `registry` chooses among them.

base.py           `Kernels`: what a backend must compute
reference.py      the reference forms, by torch's own operators
embedding_bag.py  torch's `embedding_bag`: needs no compiler, differentiable
numba.py          loops compiled by numba (extra `numba`)
cpp.py            C++ compiled at first use
cuda.py           CUDA kernels compiled by NVRTC at first use
"""
