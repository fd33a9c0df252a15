"""Compiles, keeps and starts kernels.

cxx.py       C++ sources to a shared library, by the user's compiler
nvrtc.py     CUDA sources to machine code, by NVRTC; needs no GPU
launcher.py  chooses what loads machine code and starts it on torch's stream
launch_cupy.py, launch_driver.py    by CuPy; by cuda-bindings
cache.py     the files of compiled kernels, named by a hash of what made them
"""
