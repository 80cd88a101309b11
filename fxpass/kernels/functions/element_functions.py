"""The computation of one element, through views and pointwise ops, as a function of Triton that takes the element's place.

    q = stack([-x[.., 1::2], x[.., ::2]], -1).flatten(-2) * sin     ->     def pointwise(p0, p1, i0, i1):
                                                                               t0 = tl.load(p0 + i0 * 64 + i1 // 2 * 2 + 1)
                                                                               ...
                                                                               return t4 * t5

So a kernel of ours can compute what it would otherwise read, from tensors (the *leaves*) that other kernels have stored. Views
cost nothing, since they are arithmetic on places. As in `pointwise`, all numbers in between are float32, and only casts round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.kernels.launches.limits import MAX_PARTS
from fxpass.kernels.launches.memory_writes import MemoryWrites

from .places import Place, broadcast_place, flat, folded_text, seen_through
from .pointwise import form, operands_of

aten = torch.ops.aten
_JOINS = {aten.cat.default, aten.stack.default}


class Elements:
    """Functions of the elements of nodes. Pointwise ops are followed where ``computes`` holds; any other node is a leaf."""

    def __init__(self, computes: Callable[[fx.Node], bool], writing: MemoryWrites) -> None:
        self._computes, self._writing = computes, writing
        self.leaves: list[fx.Node] = []
        self.inside: set[fx.Node] = set()
        self._names: dict[tuple[fx.Node, Place], str] = {}
        self._loads: list[str] = []
        self._lines: list[str] = []

    def function(self, node: fx.Node, place: Place) -> str:
        """The statements that give the element of ``node`` at ``place``. All loads come first: none waits for another."""
        self._names, self._loads, self._lines = {}, [], []
        last = self._element(node, place)
        return "; ".join([*self._loads, *self._lines, f"return {last}"])

    def _element(self, node: fx.Node, place: Place) -> str:
        if (node, place) not in self._names:
            self._names[node, place] = self._made(node, place)
        return self._names[node, place]

    def _made(self, node: fx.Node, place: Place) -> str:
        if _is_float(node) and (seen := seen_through(node, place)) is not None:
            self.inside.add(node)
            return self._element(*seen)
        if not _is_float(node) or not self._computes(node) or node.target in _JOINS and node.kwargs:
            return self._load(node, place)
        if node.target in _JOINS:
            text = self._joined(node, place)
        elif (parts := _few_parts(node)) is not None:
            source = node.args[0]
            text = " + ".join(self._element(source, (str(i), *place)) for i in range(parts))  # type: ignore[arg-type]
        elif (found := form(node)) is not None:
            text = found.format(*(self._operand(a, place) for a in operands_of(node)))
        else:
            return self._load(node, place)
        self.inside.add(node)
        return self._line(text)

    def _operand(self, argument: Any, place: Place) -> str:
        if not isinstance(argument, fx.Node):
            return f"({argument!r})"
        return self._element(argument, broadcast_place(argument, place))

    def _joined(self, node: fx.Node, place: Place) -> str:
        """One of the tensors that ``node`` puts one after the other, by the place along their dim."""
        pieces: Sequence[fx.Node] = node.args[0]  # type: ignore[assignment]
        dim = (node.args[1] if len(node.args) > 1 else 0) % len(place)  # type: ignore[operator]
        at, stacked, start = place[dim], node.target is aten.stack.default, 0
        texts: list[tuple[int, str]] = []
        sizes = [1 if stacked else piece.meta["val"].shape[dim] for piece in pieces]
        for piece, size in zip(pieces, sizes, strict=True):
            if not size:
                continue
            inside = at if size == sum(sizes) else folded_text(f"tl.minimum(tl.maximum({at} - {start}, 0), {size - 1})")
            inner = () if stacked else (inside,)
            texts.append((start + size, self._element(piece, (*place[:dim], *inner, *place[dim + 1 :]))))
            start += size
        if at.isdigit():
            return next(text for end, text in texts if int(at) < end)
        *first, (_, text) = texts
        for end, other in reversed(first):
            text = f"tl.where({at} < {end}, {other}, {text})"
        return text

    def _load(self, node: fx.Node, place: Place) -> str:
        """The name of the loaded element of ``node``, which becomes a leaf. It lies in memory row by row."""
        leaf = next((i for i, known in enumerate(self.leaves) if is_same(known, node, self._writing)), len(self.leaves))
        self.leaves += [node] if leaf == len(self.leaves) else []
        offset = flat(place, node.meta["val"].shape)
        self._loads.append(f"a{len(self._loads)} = tl.load(p{leaf} + {offset}).to(tl.float32)")
        return f"a{len(self._loads) - 1}"

    def _line(self, text: str) -> str:
        self._lines.append(f"t{len(self._lines)} = {text}")
        return f"t{len(self._lines) - 1}"


def is_same(one: Any, other: Any, writing: MemoryWrites) -> bool:
    """Whether two arguments are the same, or computed alike from the same nodes, to which no op writes."""
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return type(one) is type(other) and bool(one == other)
    if one is other or one.target is not other.target or one.op != "call_function" or aliases.is_impure(one):
        return one is other
    if any(writing.anywhere(aliases.storage(n)) for n in one.all_input_nodes) or one.kwargs != other.kwargs:
        return False
    return len(one.args) == len(other.args) and all(is_same(a, b, writing) for a, b in zip(one.args, other.args, strict=True))


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point() and all(isinstance(s, int) for s in value.shape)


def _few_parts(node: fx.Node) -> int | None:
    """The number of elements of the first dim that ``node`` adds up; None if it does something else, or adds up many."""
    if node.target is not aten.sum.dim_IntList or node.args[1:] != ([0],) or node.kwargs:
        return None
    parts: int = node.args[0].meta["val"].shape[0]  # type: ignore[union-attr]
    return parts if 0 < parts <= MAX_PARTS else None
