"""Deformable-attention and mask kernels for GPU and CPU."""
