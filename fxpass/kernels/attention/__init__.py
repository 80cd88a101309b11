"""Attention of few queries over a cache: the kernel, and the forms in which a graph computes it."""
