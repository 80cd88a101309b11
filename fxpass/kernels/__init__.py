"""CUDA kernels of our own for the few rows of a decode step."""
