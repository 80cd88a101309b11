"""Where the elements of views come from: the place of an element, as text, becomes its place in what the view is of.

    x.view(7, 3, 4).transpose(1, 2)   at   i0, i1, i2     ->     x   at   i0, (i2 * 4 + i1)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
Place = tuple[str, ...]
"""An element's index along each dim, as text."""
View = tuple[fx.Node, Place]
"""An element of another node."""


def seen_through(node: fx.Node, place: Place) -> View | None:
    """The element that ``node``, a view, shows at ``place``; None if ``node`` is no view that this file knows."""
    cut = node.args[0] if node.target is operator.getitem else node
    view = _VIEWS.get(cut.target) if isinstance(cut, fx.Node) else None
    if view is None or cut.kwargs and view is not _same:  # type: ignore[union-attr]
        return None
    return view(node, place)


def folded_text(text: str) -> str:
    """``text``, computed where it is a number."""
    constant = not any(c.isalpha() for c in text.replace("tl.minimum", "").replace("tl.maximum", ""))
    return str(eval(text.replace("tl.", ""), {"minimum": min, "maximum": max})) if constant else text


def flat(place: Place, sizes: Sequence[int]) -> str:
    """The place in a dense tensor of ``sizes``, seen as one dim."""
    strides = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
    return folded_text(" + ".join(f"({p}) * {s}" for p, s, n in zip(place, strides, sizes, strict=True) if n != 1) or "0")


def _regrouped(place: Place, sizes: Sequence[int], wanted: Sequence[int]) -> Place:
    """The place of the same element in a tensor of the sizes ``wanted``. Dims that stay as they are keep their text."""
    given = [(p, n) for p, n in zip(place, sizes, strict=True) if n != 1]
    found: list[str] = []
    for size in (n for n in reversed(wanted) if n != 1):
        text, count = given.pop()
        while count % size:  # the dims of a group are merged until one can be split off
            more, n = given.pop()
            text, count = folded_text(f"(({more}) * {count} + {text})"), count * n
        if count > size:
            given.append((folded_text(f"({text}) // {size}"), count // size))
            text = folded_text(f"({text}) % {size}")
        found.append(text)
    places = iter(reversed(found))
    return tuple("0" if n == 1 else next(places) for n in wanted)


def broadcast_place(node: fx.Node, place: Place) -> Place:
    """The place of the element of ``node`` that is broadcast to ``place``."""
    sizes = node.meta["val"].shape
    return tuple("0" if n == 1 else p for p, n in zip(place[len(place) - len(sizes) :], sizes, strict=True))


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
    given: list[Any] = [*node.args[1:]]
    dim, start, _, step = given + [0, None, None, 1][len(given) :]
    size = _source(node).meta["val"].shape[dim]
    start = 0 if start is None else max(start + size, 0) if start < 0 else min(start, size)
    return _moved(node, place, dim, f"%s * {step} + {start}")


def _moved(node: fx.Node, place: Place, dim: Any, text: str) -> View:
    changed = list(place)
    changed[dim] = folded_text("(" + text % changed[dim] + ")")
    return _source(node), tuple(changed)


def _piece(node: fx.Node, place: Place) -> View:
    """The element at ``place`` of ``node``, which is one of the pieces that an op cuts a tensor into."""
    cut, number = node.args
    assert isinstance(cut, fx.Node) and isinstance(number, int)
    if cut.target is aten.unbind.int:
        dims = len(place) + 1
        return _source(cut), _put(place, cut.args[1] if len(cut.args) > 1 else 0, number, dims)
    dim: Any = cut.args[2] if len(cut.args) > 2 else 0
    start = sum(v.shape[dim] for v in cut.meta["val"][:number])
    return _moved(cut, place, dim, f"%s + {start}")


_VIEWS: dict[Any, Callable[[fx.Node, Place], View]] = {
    **dict.fromkeys((aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default), _same),
    **dict.fromkeys((aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints), _reshape),
    **dict.fromkeys((aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.default, aten.unflatten.int), _reshape),
    **dict.fromkeys((aten.permute.default, aten.transpose.int), _permute),
    **dict.fromkeys((aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), _piece),
    aten.expand.default: lambda node, place: (_source(node), broadcast_place(_source(node), place)),
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
}
