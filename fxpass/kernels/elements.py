"""What an element of a tensor is computed of, through views and ops on elements, as a function of Triton of its place.

    q = stack([-x[.., 1::2], x[.., ::2]], -1).flatten(-2) * sin     ->     def pointwise(p0, p1, i0, i1):
                                                                               t0 = tl.load(p0 + i0 * 64 + i1 // 2 * 2 + 1)
                                                                               ...
                                                                               return t4 * t5

So a kernel of ours can compute what it reads, from tensors (the *leaves*) that others have stored. Views cost nothing: they are
arithmetic on places. As in `pointwise`, all is float32 in between, and nothing is rounded but by casts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases

from .limits import MAX_PARTS
from .pointwise import form
from .writing import Writing

aten = torch.ops.aten
Place = tuple[str, ...]
"""An element's index along each dim, as text."""


class Elements:
    """Functions of the elements of nodes. Ops on elements are followed where ``computes`` holds; any other node is a leaf."""

    def __init__(self, computes: Callable[[fx.Node], bool], writing: Writing) -> None:
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
        target = node.args[0].target if node.target is operator.getitem else node.target  # type: ignore[union-attr]
        if (view := _VIEWS.get(target)) is not None and _is_float(node) and _is_plain(node):
            self.inside.add(node)
            source, inner = view(node, place)
            return self._element(source, inner)
        if not _is_float(node) or not self._computes(node) or node.target in _JOINS and node.kwargs:
            return self._load(node, place)
        if node.target in _JOINS:
            text = self._joined(node, place)
        elif (parts := _few_parts(node)) is not None:
            source = node.args[0]
            text = " + ".join(self._element(source, (str(i), *place)) for i in range(parts))  # type: ignore[arg-type]
        elif (found := form(node)) is not None:
            text = found.format(*(self._operand(a, place) for a in node.args))
        else:
            return self._load(node, place)
        self.inside.add(node)
        return self._line(text)

    def _operand(self, argument: Any, place: Place) -> str:
        if not isinstance(argument, fx.Node):
            return f"({argument!r})"
        return self._element(argument, _broadcast(argument, place))

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
            inside = at if size == sum(sizes) else _folded(f"tl.minimum(tl.maximum({at} - {start}, 0), {size - 1})")
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
        """The leaf ``node`` lies in memory row by row."""
        leaf = next((i for i, known in enumerate(self.leaves) if is_same(known, node, self._writing)), len(self.leaves))
        self.leaves += [node] if leaf == len(self.leaves) else []
        offset = _flat(place, node.meta["val"].shape)
        self._loads.append(f"a{len(self._loads)} = tl.load(p{leaf} + {offset}).to(tl.float32)")
        return f"a{len(self._loads) - 1}"

    def _line(self, text: str) -> str:
        self._lines.append(f"t{len(self._lines)} = {text}")
        return f"t{len(self._lines) - 1}"


def is_same(one: Any, other: Any, writing: Writing) -> bool:
    """Whether two arguments are the same, or computed alike of the same nodes, to which no op writes."""
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


def _is_plain(node: fx.Node) -> bool:
    """Whether all that says what view ``node`` is are its positional arguments."""
    cut = node.args[0] if node.target is operator.getitem else node
    return isinstance(cut, fx.Node) and (not cut.kwargs or _VIEWS[cut.target] is _same)


def _few_parts(node: fx.Node) -> int | None:
    """How many elements of the first dim ``node`` adds up, if these are few, and that is what it does."""
    if node.target is not aten.sum.dim_IntList or node.args[1:] != ([0],) or node.kwargs:
        return None
    parts: int = node.args[0].meta["val"].shape[0]  # type: ignore[union-attr]
    return parts if 0 < parts <= MAX_PARTS else None


def _folded(text: str) -> str:
    """``text``, computed where it is a number."""
    constant = not any(c.isalpha() for c in text.replace("tl.minimum", "").replace("tl.maximum", ""))
    return str(eval(text.replace("tl.", ""), {"minimum": min, "maximum": max})) if constant else text


def _flat(place: Place, sizes: Sequence[int]) -> str:
    """The place in a dense tensor of ``sizes``, seen as one dim."""
    strides = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
    return _folded(" + ".join(f"({p}) * {s}" for p, s, n in zip(place, strides, sizes, strict=True) if n != 1) or "0")


def _regrouped(place: Place, sizes: Sequence[int], wanted: Sequence[int]) -> Place:
    """The place of the same element in a tensor of the sizes ``wanted``. Dims that stay as they are keep their text."""
    given = [(p, n) for p, n in zip(place, sizes, strict=True) if n != 1]
    found: list[str] = []
    for size in (n for n in reversed(wanted) if n != 1):
        text, count = given.pop()
        while count % size:  # the dims of a group are merged until one can be split off
            more, n = given.pop()
            text, count = _folded(f"(({more}) * {count} + {text})"), count * n
        if count > size:
            given.append((_folded(f"({text}) // {size}"), count // size))
            text = _folded(f"({text}) % {size}")
        found.append(text)
    places = iter(reversed(found))
    return tuple("0" if n == 1 else next(places) for n in wanted)


def _broadcast(node: fx.Node, place: Place) -> Place:
    """Where the element of ``node`` is that is broadcast to ``place``."""
    sizes = node.meta["val"].shape
    return tuple("0" if n == 1 else p for p, n in zip(place[len(place) - len(sizes) :], sizes, strict=True))


View = tuple[fx.Node, Place]


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _same(node: fx.Node, place: Place) -> View:
    return _source(node), place


def _reshape(node: fx.Node, place: Place) -> View:
    return _source(node), _regrouped(place, node.meta["val"].shape, _source(node).meta["val"].shape)


def _permute(node: fx.Node, place: Place) -> View:
    dims: Any = list(range(len(place)))
    if node.target is aten.permute.default:
        dims = [d % len(place) for d in node.args[1]]  # type: ignore[union-attr, operator]
    else:
        a, b = node.args[1:]
        dims[a], dims[b] = dims[b], dims[a]
    return _source(node), tuple(place[dims.index(d)] for d in range(len(dims)))


def _select(node: fx.Node, place: Place) -> View:
    dim, index = node.args[1:]
    sizes = _source(node).meta["val"].shape
    return _source(node), _put(place, dim, index % sizes[dim], len(sizes))  # type: ignore[operator, index]


def _put(place: Place, dim: Any, index: int, dims: int) -> Place:
    return (*place[: dim % dims], str(index), *place[dim % dims :])


def _slice(node: fx.Node, place: Place) -> View:
    dim, start, _, step = (*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :])
    size = _source(node).meta["val"].shape[dim]  # type: ignore[index]
    start = 0 if start is None else max(start + size, 0) if start < 0 else min(start, size)  # type: ignore[operator]
    return _moved(node, place, dim, f"%s * {step} + {start}")


def _moved(node: fx.Node, place: Place, dim: Any, text: str) -> View:
    changed = list(place)
    changed[dim] = _folded("(" + text % changed[dim] + ")")
    return _source(node), tuple(changed)


def _piece(node: fx.Node, place: Place) -> View:
    """``node`` is one of the results of what cuts a tensor up."""
    cut, number = node.args
    assert isinstance(cut, fx.Node) and isinstance(number, int)
    if cut.target is aten.unbind.int:
        dims = len(place) + 1
        return _source(cut), _put(place, cut.args[1] if len(cut.args) > 1 else 0, number, dims)
    dim: Any = cut.args[2] if len(cut.args) > 2 else 0
    start = sum(v.shape[dim] for v in cut.meta["val"][:number])
    return _moved(cut, place, dim, f"%s + {start}")


_JOINS = {aten.cat.default, aten.stack.default}

_VIEWS: dict[Any, Callable[[fx.Node, Place], View]] = {
    **dict.fromkeys((aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default), _same),
    **dict.fromkeys((aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints), _reshape),
    **dict.fromkeys((aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.default, aten.unflatten.int), _reshape),
    **dict.fromkeys((aten.permute.default, aten.transpose.int), _permute),
    **dict.fromkeys((aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), _piece),
    aten.expand.default: lambda node, place: (_source(node), _broadcast(_source(node), place)),
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
}
