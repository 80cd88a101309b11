"""In-place ops on some rows of an axis with an extent. The rows may start anywhere, and no other rows are written.

x[:, 1:] = y           {1: e}       ->      copy_(x, where(arange(S) in [1, e), y at arange(S) - 1, x))
x[:, -4:].mul_(2)      {1: e}       ->      copy_(x, where(arange(S) in [e - 4, e), rows * 2 at arange(S) - (e - 4), x))
buf[:, s:].zero_()     s moves      ->      copy_(buf, where(arange(S) in [s, S), 0, buf))
x[:, 0] = 0            {1: e}       ->      copy_(x, where(arange(S) in [0, 1), 0, x))

The op runs on a copy of the rows, which is made right before the op and put back right after it. The copy has as many rows as
there is room for in what is written. No other op may use the slice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import RULES, Extents, Flow, WrittenSlice
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.numbers import Derived, equal

from .places import plus, rows, take
from .pointwise import broadcast
from .stores import refuse_writer

aten = torch.ops.aten


def take_part(node: fx.Node, flow: Flow, part: WrittenSlice, step: int = 1) -> None:
    """Note that the slice ``node`` is ``part``, if it is only written to. Any other slice becomes a copy.

    Raises:
        Refusal: the copy could be told from the slice.
    """
    if step == 1 and flow.part_of(part.base) is None and is_only_written(node):
        flow.parts[node] = part
    else:
        flow.refuse_copy(node)


def is_only_written(node: fx.Node) -> bool:
    """Whether all users of the view ``node``, and of views of it, write to it or ask for its sizes."""
    users = [user for user in node.users if user.target is not aten.sym_size.int]
    return bool(users) and all(
        (aliases.written(user) == [node] and user.all_input_nodes.count(node) == 1 and all(map(_is_idle, user.users)))
        or (aliases.base(user) is node and not aliases.written(user) and is_only_written(user))
        for user in users
    )


def _is_idle(node: fx.Node) -> bool:
    """Whether ``node`` copies what has been written to a slice onto itself, as ``x[1:] += y`` does."""
    if node.target is not aten.copy_.default or node.users:
        return False
    into, source = node.args[:2]
    return aliases.written(source) != [] and _place(into) == _place(source.args[0])  # type: ignore[arg-type, union-attr]


def _place(view: Any) -> list[Any]:
    """What ``view`` is a view of, and the ops in between."""
    found: list[Any] = []
    while isinstance(view, fx.Node) and (base := aliases.base(view)) is not None:
        found.append((view.target, view.args[1:], view.kwargs))
        view = base
    return [*found, view]


def parts(node: fx.Node, flow: Flow) -> Extents:
    """The rule of every in-place op whose target is one of `Flow.parts`, or a view of one."""
    target: Any = node.args[0]
    refuse_writer(node, flow)
    found = flow.part_of(target)
    assert found is not None
    part, views = flow.parts[found[0]], found[1]
    if _is_idle(node):
        flow.replace(node, lambda b: b.call(aten.alias.default, b.current(part.base)))
        return dict(flow.of(target))
    operands = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node)]
    if any(aliases.storage(o) == aliases.storage(target) for o in operands if o is not target):
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="what it reads,")
    out = broadcast(node, flow, operands)
    if out.keys() != flow.of(target).keys():
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="a number of values that moves, along another axis,")
    if len(flow.of(part.base)) > 1 or any(i is not v.args[0] for v in views for i in v.all_input_nodes):
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="another axis that moves,")
    cut = [e for d, e in out.items() if not equal(e.full_size, flow.of(target)[d].full_size)]
    if cut and len(out) > 1:
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="another axis that moves,")
    count = cut[0].full if cut else part.extent.full if isinstance(part.count, (fx.Node, Derived)) else part.count
    given = node.args[1:], node.kwargs
    flow.replace(node, lambda b: _put_back(b, node, part, views, b.number(count), given))
    return out


def _put_back(b: Any, node: fx.Node, part: WrittenSlice, views: list[fx.Node], count: Any, given: Any) -> fx.Node:
    base, dim, extent, like = b.current(part.base), part.dim, part.extent, part.base.meta["val"]
    start = b.twin(part.start, like.device)
    old = rows(b, base, dim, extent, count, lambda steps: plus(b, steps, start))
    new = view = b.call(aten.clone.default, b.call(aten.squeeze.dim, old, dim) if part.squeezed else old)
    for one in views:
        view = b.call(one.target, view, *one.args[1:], **one.kwargs)
    args, kwargs = fx.node.map_arg(given, lambda operand: b.operand(node, operand))
    b.call(node.target, view, *args, **kwargs)
    new = b.call(aten.unsqueeze.default, new, dim) if part.squeezed else new
    steps, first = b.call(aten.arange.default, b.full(extent), device=like.device), b.tensor(part.start, like.device)
    end = b.call(aten.add.Tensor, first, b.twin(part.count, like.device))
    inside = b.call(aten.logical_and.default, b.call(aten.ge.Tensor, steps, first), b.call(aten.lt.Tensor, steps, end))
    moved = take(b, new, dim, count, b.call(aten.sub.Tensor, steps, start))
    return b.call(aten.copy_.default, base, b.call(aten.where.self, b.along(inside, like.dim(), dim), moved, base))


RULES["parts"] = parts
