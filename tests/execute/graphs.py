"""Graphs in aten with fake values, as the hand-off takes them, and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx


def traced(fn: Callable[..., Any], args: Sequence[torch.Tensor]) -> fx.GraphModule:
    """``fn`` on fakes of ``args``, mutation left in place."""
    with FakeTensorMode() as mode, torch.no_grad():
        return make_fx(fn, pre_dispatch=True)(*(mode.from_tensor(a) for a in args))


def same(first: Callable[..., Any], second: Callable[..., Any], args: Sequence[torch.Tensor]) -> bool:
    """Whether both give the same outputs and leave the same in ``args``, to the bit."""
    own = [[a.clone() for a in args] for _ in range(2)]
    results = [fn(*mine) for fn, mine in zip((first, second), own, strict=True)]
    pairs = zip((*results[0], *own[0]), (*results[1], *own[1]), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
