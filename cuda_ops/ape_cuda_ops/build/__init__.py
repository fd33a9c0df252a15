"""Compiles and starts kernels of a GPU; `ape_stream.native` compiles those of a CPU.

nvrtc.py     CUDA sources to machine code, by NVRTC; needs no GPU
launcher.py  chooses what loads machine code and starts it on torch's stream
launch_cupy.py, launch_driver.py    by CuPy; by cuda-bindings
"""
