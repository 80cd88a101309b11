"""Post-conditions, asserted on every rewritten graph before it is handed on.

1. No ``item``: nothing in the graph asks the device for a number that a rewrite was to replace. A float is no such number:
   one that moves comes as a tensor on the host.
2. The static part is static: no position, no symbol in any size, stride or argument of the core.
3. Same outputs: number, dtype and shape.
4. Same mutated inputs.
5. A number that is a symbol is a node: as an argument its name would stand for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Reasoned
from fxpass.torch_internals.operators import tree_leaves

from . import aliases
from .numbers import equal, symbols
from .schemas import ITEM
from .values import values_of

_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Broken(Reasoned):
    """A post-condition does not hold; ``what`` says which, and where."""

    def __init__(self, what: str) -> None:
        super().__init__(reasons.BROKEN, what=what)


def signature(gm: fx.GraphModule) -> tuple[list[Any], set[str]]:
    """What a rewrite must not change: the fake values of the outputs, and the names of the inputs that are written."""
    (results,) = next(n for n in gm.graph.nodes if n.op == "output").args
    values = [r.meta["val"] if isinstance(r, fx.Node) else r for r in tree_leaves(results)]
    written = {aliases.root(w).name for n in gm.graph.nodes for w in aliases.written(n)}
    inputs = {n.name for n in gm.graph.nodes if n.op == "placeholder"}
    return values, written & inputs


def check_graph(
    gm: fx.GraphModule, before: tuple[list[Any], set[str]], may_read: bool, cut: Mapping[int, Collection[int]] | None = None
) -> None:
    """Check conditions 1, 3, 4 and 5 on the rewritten ``gm``.

    Args:
        gm: the rewritten module.
        before: the `signature` of the graph as it came.
        may_read: whether a refused site may still read its number.
        cut: the results that are cut outside of the graph, by their places, each with the dims along which it is cut.

    Raises:
        Broken: one of them does not hold.
    """
    for node in gm.graph.nodes:
        if node.target in ITEM and not isinstance(node.meta["val"], torch.SymFloat) and not may_read:
            raise Broken(f"{node.name} still reads a number from the device")
        if any(isinstance(a, _SYMBOLIC) for a in tree_leaves((node.args, node.kwargs))):
            raise Broken(f"{node.name} takes a symbol that no node gives")
    cut = cut or {}
    values, written = signature(gm)
    old_values, old_written = before
    if written != old_written:
        raise Broken(f"the mutated inputs changed: {sorted(old_written ^ written)}")
    if len(values) != len(old_values):
        raise Broken("the number of outputs changed")
    for i, (old, new) in enumerate(zip(old_values, values, strict=True)):
        if not _same(old, new, cut.get(i, ())):
            raise Broken(f"output {i} changed from {_describe(old)} to {_describe(new)}")


def check_core(core: fx.GraphModule, bound: Set[Any]) -> None:
    """Condition 2 on the static part.

    Raises:
        Broken: a symbol is left in it that is not ``bound`` when it is compiled.
    """
    for node in core.graph.nodes:
        if node.target in ITEM:
            raise Broken(f"{node.name} reads a number from the device inside the static part")
        for v in values_of(node):
            left = symbols(v) - bound
            if left:
                raise Broken(f"{node.name} in the static part depends on {', '.join(sorted(map(str, left)))}")


def _same(old: Any, new: Any, cut: Collection[int] = ()) -> bool:
    if not isinstance(old, torch.Tensor):
        return not isinstance(new, torch.Tensor) and (old is None and new is None or equal(old, new))
    if not isinstance(new, torch.Tensor) or old.dtype != new.dtype or old.device != new.device:
        return False
    return old.dim() == new.dim() and all(
        d in cut or equal(a, b) for d, (a, b) in enumerate(zip(old.shape, new.shape, strict=True))
    )


def _describe(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else str(value)
