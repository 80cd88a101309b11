"""A tensor that is joined of several is written by what computes these, each in a loop of its own.

    cat([df, loc, scale])     Inductor's    for i: out[i] = df(i) if i < a else loc(i - a) if i < b else scale(i - b)
                              here          for i: out[i] = df(i);    for i: out[a + i] = loc(i);    for i: ...

Inductor computes all of them for each element. Loops that need nothing of each other are
one kernel in a recording, of which each program runs one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxpass.torch_internals.contracts import internal

from .lowerings import lower


def lower_joins(op: Any) -> bool:
    """Let Inductor generate ``op``, which takes tensors of one dim and one dtype and does what `torch.cat` does, in this way.
    Gives whether it does so."""
    return lower(op, _join)


def _join(parts: Sequence[Any]) -> Any:
    return internal("torch._inductor.ir.TensorBox")(internal("torch._inductor.ir.ConcatKernel").create(list(parts), 0))
