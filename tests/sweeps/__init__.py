"""Sweeps over many small programs: PyTorch's own samples of its operators, and all programs of a small grammar."""
