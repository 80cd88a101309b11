"""What the kernels are written for: devices, dtypes, and the sizes up to which they are faster than what they replace."""

from __future__ import annotations

import importlib.util

import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
"""Whether there are kernels at all."""
DEVICES = {"cuda"}
"""The devices that the kernels run on."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that the kernels compute with."""
SURE_ROWS = 8
"""Up to so many rows a product is faster than cuBLAS' in all shapes that were tried."""
MEASURED_ROWS = 64
"""Up to so many rows it is measured which of the two is faster. A product with more is left to cuBLAS."""
MAX_ROWS = 16
"""Where nothing can be measured, a product with more rows than this is left to cuBLAS."""
MAX_OUTPUTS = 32
"""A product in float32 with more rows than `MAX_ROWS` is turned into one with few rows if it has at most this many outputs."""
MAX_TURNED = 4
"""At most this many products are turned into one."""
MAX_LAYERS = 3
"""One launch computes at most this many linear layers of the same rows."""
MAX_ROWS_AT_ONCE = 32
"""A program computes at most this many rows of a product."""
MAX_PARTS = 12
"""The sums of a product are cut into at most this many parts."""
MAX_LEAVES = 8
"""Attention computes its rows from at most this many tensors."""
MAX_QUERIES = 64
"""Attention of more queries than this is left to torch: there, one read of the keys serves many queries."""
FEW_QUERIES = 16
"""Attention over keys that are all valid is left to torch if it has more queries than this."""


def addressed(*tensors: torch.Tensor) -> bool:
    """Whether the kernels can reach ``tensors``: they are on a GPU, and offsets into them fit into 32 bits."""
    spans = (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors)
    return all(t.device.type in DEVICES for t in tensors) and all(span < 2**31 for span in spans)
