"""The graph's own views and pointwise ops as functions of Triton, which kernels call."""
