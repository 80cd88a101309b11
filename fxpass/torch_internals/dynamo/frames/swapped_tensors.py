"""Tensors can be swapped, as with stock `torch.compile`.

    torch.utils.swap_tensors(m.index, other)      raises where somebody holds one of the two weakly, as the mirror does, and
                                                  what knows to which tensors a frame has written

Nothing is known of either of them afterwards.
"""

from __future__ import annotations

from typing import Any

from fxpass.index_tensors import mirror
from fxpass.torch_internals.patches import patch

from .history import let_go


def install() -> None:
    """Install the hook."""
    patch("torch.utils.swap_tensors", _swap)


def _swap(stock: Any, t1: Any, t2: Any) -> None:
    for tensor in (t1, t2):
        mirror.forget(tensor)
        let_go(tensor)
    stock(t1, t2)
