"""Operators of ours that Inductor generates, as it is told in its own terms; it calls any other operator as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxpass.torch_internals.contracts import Feature, internal
from fxpass.torch_internals.features import holds

_lowered: set[Any] = set()


def lower(op: Any, lowering: Callable[..., Any]) -> bool:
    """Let Inductor generate ``op`` by ``lowering``. Gives whether it does so."""
    if not holds(Feature.LOWERINGS):
        return False
    if op not in _lowered:
        internal("torch._inductor.lowering.register_lowering")(op, type_promotion_kind=None)(lowering)
        _lowered.add(op)
    return True
