"""Inductor: what compiles a part of a graph, and how kernels are compiled side by side."""
