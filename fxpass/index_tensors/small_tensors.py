"""Which tensors of a Dynamo graph can be index tensors: small ones of integers, with sizes that are known."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import FakeTensor

MAX_ELEMENTS = 1024
"""A tensor with more elements than this is data, and no index tensor."""


def is_small_int(node: fx.Node, bool_too: bool = False) -> bool:
    """Whether ``node`` is a small tensor of int32 or int64, or of bool with ``bool_too``, of known sizes."""
    value = node.meta.get("example_value")
    if type(value) not in (FakeTensor, torch.Tensor) or value.layout is not torch.strided:
        return False
    kinds = (torch.int32, torch.int64, torch.bool) if bool_too else (torch.int32, torch.int64)
    if value.dtype not in kinds or not all(isinstance(s, int) for s in shape_of(node)):
        return False
    return 0 < math.prod(shape_of(node)) <= MAX_ELEMENTS


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The sizes of the tensor ``node``, as ints where guards have fixed them."""
    return tuple(int_if_fixed(size) for size in node.meta["example_value"].shape)


def int_if_fixed(size: Any) -> Any:
    """``size`` as an int, where guards have fixed it."""
    known = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else None
    return size if known is None else known
