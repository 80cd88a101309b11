"""Kernels that write rows into buffers, and fill buffers."""
