"""Results that are views of one tensor, which is as long as what grows or as a position says, are taken outside of the graph.

    return x, x[:, -1:]          ->          return x, None          and outside x[:, -1:], of the x that is returned
    return x[0], x[1]            ->          return x, None          and outside x[0], x[1]
    return x[:, -1]              ->          return x                and outside x[:, -1], which has gaps in memory

Such an `x` leaves the graph at full size, and is cut outside. Views that are taken in the graph would not share memory with
what the caller gets.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import bounds_of, size_of, sliced_axis
from fxpass.graph.layouts import dense_order
from fxpass.graph.numbers import fixed, number, symbols, to_expr
from fxpass.graph.schemas import is_operator
from fxpass.graph.values import is_tensor


class ViewOp(NamedTuple):
    """The operator called ``name``, with ``args`` after the tensor; of several views, the one at ``place``."""

    name: str
    args: tuple[Any, ...]
    place: int | None = None


class ViewOf(NamedTuple):
    """What ``steps`` make of the result at ``place``."""

    place: int
    steps: tuple[ViewOp, ...]

    def of(self, results: Sequence[torch.Tensor]) -> torch.Tensor:
        """The view, taken from ``results``."""
        made: Any = results[self.place]
        for step in self.steps:
            made = operator.attrgetter(step.name)(torch.ops)(made, *step.args)
            made = made if step.place is None else made[step.place]
        return made  # type: ignore[no-any-return]


def viewed_results(
    results: Sequence[Any], moving: Set[Any], is_due: Callable[[fx.Node], bool] = lambda whole: True
) -> tuple[list[Any], dict[int, ViewOf]]:
    """``results`` with the tensors whose sizes have ``moving`` symbols in the places of views of them; and these views.

    A tensor that is no result takes the place of its first view. The other views' places are None. Only tensors that ``is_due``
    holds for are looked at.
    """
    given, views = list(results), {}
    tensors = {i: r for i, r in enumerate(results) if isinstance(r, fx.Node) and is_tensor(r)}
    wholes = {i: _whole(r) for i, r in tensors.items()}
    for whole in dict.fromkeys(wholes.values()):
        of = {i: r for i, r in tensors.items() if wholes[i] is whole}
        if whole.op != "call_function" or not _must_leave([*of.values()], whole, moving) or not is_due(whole):
            continue
        steps = {i: _steps(r, whole) for i, r in of.items() if r is not whole}
        if not steps or None in steps.values():
            continue
        place = min(of.keys() - steps.keys() or steps)
        views.update({i: ViewOf(place, made) for i, made in steps.items() if made is not None})
        given = [None if i in steps else r for i, r in enumerate(given)]
        given[place] = whole
    return given, views


def _must_leave(views: Sequence[fx.Node], whole: fx.Node, moving: Set[Any]) -> bool:
    """Whether ``views`` of ``whole`` can be no results of the graph: several share memory, or one has gaps in it, and its size
    moves."""
    if len(views) == 1:
        return dense_order(views[0].meta["val"]) is None and _moves(whole, moving)
    return any(_moves(view, moving) for view in views)


def _moves(node: fx.Node, moving: Set[Any]) -> bool:
    return any(symbols(size) & moving for size in node.meta["val"].shape)


def _whole(node: fx.Node) -> fx.Node:
    while (base := _base(node)) is not None:
        node = base
    return node


def _base(node: fx.Node) -> fx.Node | None:
    """What ``node`` is a view of, or one of several views. A dropout that drops nothing gives its operand itself."""
    if node.target is torch.ops.aten.dropout.default and not (node.args[1] and node.args[2]):
        return node.args[0]  # type: ignore[return-value]
    base = aliases.base(node)
    return base if base is None or is_tensor(base) or aliases.base(base) is not None else None


def _steps(view: fx.Node, whole: fx.Node) -> tuple[ViewOp, ...] | None:
    """How ``view`` is made of ``whole``; None if numbers that move say how, or if it is ``whole`` that was written."""
    steps: list[ViewOp] = []
    place = None
    while view is not whole:
        base = _base(view)
        if base is None or view.args[0] is not base or view.kwargs or aliases.written(view):
            return None
        if view.target is operator.getitem:
            place = view.args[1]
        else:
            step = _step(view, base)
            if step is None:
                return None
            steps.insert(0, step._replace(place=place))
            place = None
        view = base
    return tuple(steps)


def _step(view: fx.Node, base: fx.Node) -> ViewOp | None:
    if view.all_input_nodes != [base]:
        return _last_rows(view)
    if not is_operator(view.target) or view.target.namespace != "aten":  # type: ignore[union-attr]
        return None
    return ViewOp(str(view.target), tuple(view.args[1:]))


def _last_rows(view: fx.Node) -> ViewOp | None:
    """A slice of a fixed number of rows, if it starts at a fixed distance from the front or from the end."""
    axis = sliced_axis(view)
    rows = None if axis is None else fixed(view.meta["val"].shape[axis[1]])
    if axis is None or rows is None or view.meta["val"].dim() != axis[0].meta["val"].dim():
        return None
    base, dim = axis
    try:
        start, _ = bounds_of(view, size_of(base, dim, view))
    except Refusal:
        return None
    for distance in (to_expr(number(start)), to_expr(number(start) - base.meta["val"].shape[dim])):
        if isinstance(distance, int) or distance.is_Integer:
            return ViewOp("aten.narrow.default", (dim, int(distance), rows))
    return None
