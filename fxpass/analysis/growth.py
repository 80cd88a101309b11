"""What grows: inputs that are longer on each call, and the joins that make them so.

    past: [B, H, s, D]        cat([past, new], 2) is a result        grown by the graph: the next call's ``past``
    mask: [B, t]              t == s + 1                             grown by the caller, along with it
    x: [B, u]                 u is neither                           left as it is

The symbols of growing sizes are told by `analysis.kinds`; what the graph does with them is told here. An input that is written,
or of which the caller gets a view, is left as it is, and so is a join that is no plain contiguous tensor of memory of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Set
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.numbers import equal, guarded, symbols

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Growing:
    """The input ``node`` grows along ``dim``, where ``join`` makes it longer; None where the caller does."""

    node: fx.Node
    dim: int
    join: fx.Node | None = None

    @property
    def size(self) -> Any:
        """How long it is."""
        return self.node.meta["val"].shape[self.dim]

    @property
    def end(self) -> Any:
        """How long it is once it is joined."""
        return self.size if self.join is None else self.join.meta["val"].shape[self.dim]


def growing(graph: fx.Graph, moving: Set[Any]) -> list[Growing]:
    """What grows in ``graph``, in normal form, of whose inputs' sizes those in the symbols ``moving`` do; nothing without a join.

    That lengths which agree now will always agree becomes a guard.
    """
    kept = _Kept(graph)
    axes = [(n, dim) for n in graph.find_nodes(op="placeholder") if (dim := _axis(n, moving)) is not None]
    joined = [Growing(n, dim, join) for n, dim in axes if (join := _join(n, dim, kept)) is not None]
    lengths: list[Any] = []
    for one in joined:
        _same(one.size, lengths) or lengths.append(one.size)
        _same(one.end, lengths) or lengths.append(one.end)
    known = {one.node for one in joined}
    others = [Growing(n, dim) for n, dim in axes if n not in known and kept.is_read_only(n)]
    return joined + [one for one in others if _same(one.size, lengths)]


def _axis(node: fx.Node, moving: Set[Any]) -> int | None:
    """The one dim of ``node`` whose size moves."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    dims = [d for d, size in enumerate(value.shape) if symbols(size) & moving]
    return dims[0] if len(dims) == 1 else None


def _join(node: fx.Node, dim: int, kept: _Kept) -> fx.Node | None:
    """The first join of ``node`` with something behind it along ``dim``, if it is plain."""
    if not kept.is_read_only(node):
        return None
    return next((u for u in node.users if _is_join(u, node, dim) and kept.is_read_only(u) and is_plain(u)), None)


def _is_join(user: fx.Node, node: fx.Node, dim: int) -> bool:
    if user.target is not aten.cat.default:
        return False
    parts, along = user.args[0], (user.args[1] if len(user.args) > 1 else user.kwargs.get("dim", 0))
    values = [p.meta["val"] for p in parts]  # type: ignore[union-attr]
    if parts[0] is not node or parts.count(node) > 1 or along % values[0].dim() != dim:  # type: ignore
        return False
    return all(v.dim() == values[0].dim() and v.device == values[0].device for v in values)


def is_plain(join: fx.Node) -> bool:
    """Whether ``join`` is contiguous, and of the dtype of what it makes longer."""
    value, stride = join.meta["val"], 1
    if value.dtype != join.args[0][0].meta["val"].dtype:  # type: ignore[index, union-attr]
        return False
    for size, own in reversed([*zip(value.shape, value.stride(), strict=True)]):
        if not equal(own, stride):
            return False
        stride = stride * size
    return True


def _same(size: Any, lengths: Iterable[Any]) -> bool:
    """Whether ``size`` is one of ``lengths``: those that are equal now are guarded to be."""
    return any(equal(size, length) for length in lengths) or any(guarded(size == length) for length in lengths)


class _Kept:
    """What ``graph`` writes to, and what its caller gets views of."""

    def __init__(self, graph: fx.Graph) -> None:
        self._written = {m for n in graph.nodes for w in aliases.written(n) for m in aliases.storages(w)}
        self._views = list(_results(graph))

    def is_read_only(self, node: fx.Node) -> bool:
        """Whether nothing is written to the memory of ``node``, and no view of it is a result."""
        memory = aliases.storage(node)
        shown = any(aliases.storage(r) == memory and r is not node for r in self._views)
        return memory is not None and memory not in self._written and not shown


def _results(graph: fx.Graph) -> Iterator[fx.Node]:
    yield from graph.output_node().all_input_nodes
