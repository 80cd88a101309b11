"""What grows: inputs that are longer on each call, and the joins that make them so.

    past: [B, H, s, D]        cat([past, new], 2) is a result        grown by the graph: the next call's ``past``
    past: [B, H, s, D]        cat([cat([past, a]), b]) is a result   grown by the graph, in two joins
    mask: [B, t]              t == s + 1                             grown by the caller, along with it
    series: [B, u]            u has risen from call to call          grown by the caller
    x: [B, v]                 v has not                              left as it is

`analysis.kinds` tells which sizes grow, and this file what the graph does with them. An input that is written, or of which the
caller gets a view, is left as it is. A join that is contiguous and of its input's dtype becomes the buffer itself; any other
join is computed from the buffer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.extract import descendants
from fxpass.graph.layouts import is_contiguous
from fxpass.graph.numbers import equal, fixed, guarded, hint, input_sizes, layout, symbols
from fxpass.graph.values import is_tensor

aten = torch.ops.aten

_ROWS_KEPT = {aten.cat.default, aten.clone.default, aten.contiguous.default, aten.roll.default}


@dataclasses.dataclass(frozen=True)
class Growing:
    """The input ``node``, which grows along ``dim``.

    end: its length within the graph, with all rows that are joined to it.
    joins: the join that the next call gets as its input, after those that it begins with. Empty where rows are joined to a
        tensor that is made of ``node``, or where the caller makes ``node`` longer.
    is_series: whether it is taken to grow since it was longer on each call, and not because of a join.
    """

    node: fx.Node
    dim: int
    end: Any
    joins: Sequence[fx.Node] = ()
    is_series: bool = False

    @property
    def size(self) -> Any:
        """How long it is."""
        return self.node.meta["val"].shape[self.dim]


def growing(
    graph: fx.Graph,
    moving: Set[Any],
    rising: Sequence[Any] = (),
    is_work: Callable[[fx.Node], bool] = lambda node: False,
) -> list[Growing]:
    """The inputs that grow in ``graph``, which is in normal form.

    These are the inputs that rows are joined to, along sizes whose symbols are ``moving``; those that are as long as one of
    these; and each *series*, which has one of the sizes ``rising``: the caller has made it longer on each call.

    A series is left as it is where an op that ``is_work`` gives a result of its length, since all of it is worked on in each
    call. Lengths that agree now are guarded to agree always.
    """
    kept = _Kept(graph)
    inputs = [n for n in graph.find_nodes(op="placeholder") if kept.is_read_only(n)]
    joined = [one for n in inputs if (one := _joined(n, moving, kept)) is not None]
    lengths: list[Any] = []
    _unite([size for one in joined for size in (one.size, one.end)], lengths)
    known = {one.node for one in joined}
    others = [(n, [d for d in _axes(n, moving) if _is_one_of(_sizes(n)[d], lengths)]) for n in inputs if n not in known]
    found = joined + [Growing(n, dims[0], _sizes(n)[dims[0]]) for n, dims in others if dims]
    known = {one.node for one in found}
    series = [one for n in inputs if n not in known and (one := _series(n, rising)) is not None]
    own = {s for one in series for s in symbols(one.size)} & moving
    if any(is_work(node) and symbols(node.meta["val"]) & own for node in graph.nodes):
        return found
    _unite([one.size for one in series], lengths)
    return found + series


def _series(node: fx.Node, rising: Sequence[Any]) -> Growing | None:
    """``node`` along the first dim that has one of the sizes ``rising``."""
    sizes = [(d, size) for d, size in enumerate(_sizes(node)) if symbols(size)]
    dims = [d for d, size in sizes if any(equal(size, own) for own in rising)]
    return Growing(node, dims[0], _sizes(node)[dims[0]], is_series=True) if dims else None


def _unite(sizes: Iterable[Any], lengths: list[Any]) -> None:
    """Add to ``lengths`` those of ``sizes`` that equal none of them."""
    for size in sizes:
        if not _is_one_of(size, lengths):
            lengths.append(size)


def longer_otherwise(graph: fx.Graph, moving: Set[Any], before: Mapping[tuple[int, int], int | None]) -> list[fx.Node]:
    """The inputs of ``graph`` from which it makes a result that is longer along a dim that is ``moving``.

    If the result is the next call's input, then the input was shorter in the last call by the rows that are added: ``before``
    tells how long it was, by its place and dim. So a class token before the patches of an image makes no cache.
    """
    returned = [n for n in graph.output_node().all_input_nodes if is_tensor(n)]
    inputs = graph.find_nodes(op="placeholder")
    found: list[fx.Node] = []
    for node in dict.fromkeys(n for n, *_ in input_sizes(graph)):
        added = [more for r in returned if (more := _added(r, node, moving)) is not None]
        last = {dim: before.get((inputs.index(node), dim)) for dim, _ in added}
        if any(fixed(rows) is None or last[d] in (None, hint(_sizes(node)[d]) - rows) for d, rows in added):
            found.append(node)
    return found


def _added(result: fx.Node, node: fx.Node, moving: Set[Any]) -> tuple[int, Any] | None:
    """The one ``moving`` dim along which ``result`` is longer than ``node``, from which it is made, and by how much."""
    dim = _longer_along(result, node)
    if dim is None or dim not in _axes(node, moving) or not symbols(_sizes(result)[dim]):
        return None
    return dim, _sizes(result)[dim] - _sizes(node)[dim]


def _longer_along(result: fx.Node, node: fx.Node) -> int | None:
    """The dim along which ``result``, made of ``node``, is longer, if its other sizes are the same; else None. A buffer that is
    handed in, and written, is not made of the rows."""
    if aliases.root(result).op == "placeholder":
        return None
    made, given = ([hint(size) for size in _sizes(n)] for n in (result, node))
    if len(made) != len(given) or None in (*made, *given):  # None: an unbacked one
        return None
    dims = [d for d, (a, b) in enumerate(zip(made, given, strict=True)) if a != b]
    if len(dims) != 1 or made[dims[0]] < given[dims[0]] or result not in descendants(node):
        return None
    return dims[0]


def made_longer(graph: fx.Graph) -> dict[fx.Node, int]:
    """The inputs of ``graph`` of which it returns something that is longer along one dim alone; with that dim.

    Where a result of an input's own sizes is made of its rows, as the state of a convolution is, that one takes its place.
    """
    returned = [n for n in graph.output_node().all_input_nodes if is_tensor(n)]
    inputs = [n for n in graph.find_nodes(op="placeholder") if is_tensor(n)]
    inputs = [n for n in inputs if not any(_same_sizes(r, n) and _has_rows_of(r, n) for r in returned if r is not n)]
    return {n: dim for n in inputs for r in returned if (dim := _longer_along(r, n)) is not None}


def _same_sizes(result: fx.Node, node: fx.Node) -> bool:
    return [*map(hint, _sizes(result))] == [*map(hint, _sizes(node))]


def _has_rows_of(result: fx.Node, node: fx.Node) -> bool:
    """Whether ``result`` is made of ``node`` by views, copies and joins alone."""
    made = aliases.root(result)
    if made is node or made.target not in _ROWS_KEPT:
        return made is node
    parts = made.args[0] if made.target is aten.cat.default else made.args[:1]
    return any(_has_rows_of(part, node) for part in parts)  # type: ignore[union-attr, arg-type]


def _axes(node: fx.Node, moving: Set[Any]) -> list[int]:
    """The dims of ``node`` whose sizes move."""
    return [d for d, size in enumerate(_sizes(node)) if symbols(size) & moving]


def _sizes(node: fx.Node) -> Sequence[Any]:
    return node.meta["val"].shape  # type: ignore[no-any-return]


def _joined(node: fx.Node, moving: Set[Any], kept: _Kept) -> Growing | None:
    """``node`` with the joins that put rows behind it, or behind a tensor computed from it, along a dim that moves."""
    for dim in _axes(node, moving):
        for joins in _joins_behind(node, dim, kept):
            alone = not any(map(kept.is_shown, joins[:-1]))
            if alone and all(kept.is_read_only(join, by_name=True) and is_plain(join) for join in joins):
                return Growing(node, dim, _sizes(joins[-1])[dim], joins)
        for made in sorted([node, *descendants(node)], key=lambda n: aliases.root(n) is not node):
            if not is_tensor(made):
                continue
            along = [d for d, size in enumerate(_sizes(made)) if equal(size, _sizes(node)[dim])]
            if along and (joins := next(_joins_behind(made, along[0], kept), [])):
                return Growing(node, dim, _sizes(joins[-1])[along[0]])
    return None


def _joins_behind(node: fx.Node, dim: int, kept: _Kept) -> Iterator[list[fx.Node]]:
    """The ways in which joins put rows behind ``node``: first each chain of joins, the last of which is a result; then each
    join of ``node`` by itself."""
    for shown in kept.shown:
        joins: list[fx.Node] = []
        while shown.target is aten.cat.default and _is_join(shown, first := shown.args[0][0], dim):  # type: ignore[index]
            joins.insert(0, shown)
            shown = first
            if first is node:
                yield joins
                break
    yield from ([user] for user in node.users if _is_join(user, node, dim))


def _is_join(user: fx.Node, node: fx.Node, dim: int) -> bool:
    """Whether ``user`` is a `cat` along ``dim`` that begins with ``node``, of parts that are alike but for their length."""
    if user.target is not aten.cat.default:
        return False
    parts, along = user.args[0], (user.args[1] if len(user.args) > 1 else user.kwargs.get("dim", 0))
    values = [p.meta["val"] for p in parts]  # type: ignore[union-attr]
    if parts[0] is not node or parts.count(node) > 1 or along % values[0].dim() != dim:  # type: ignore
        return False
    return all(v.dim() == values[0].dim() and v.device == values[0].device for v in values)


def is_plain(join: fx.Node) -> bool:
    """Whether ``join`` is contiguous, and of the dtype of what it makes longer."""
    return bool(join.meta["val"].dtype == join.args[0][0].meta["val"].dtype) and is_contiguous(join.meta["val"])  # type: ignore


def _is_one_of(size: Any, lengths: Iterable[Any]) -> bool:
    """Whether ``size`` is one of ``lengths``. If it equals one of them now, a guard keeps it so."""
    return any(equal(size, length) for length in lengths) or any(guarded(size == length) for length in lengths)


class _Kept:
    """What ``graph`` writes to, and what its caller gets views of."""

    def __init__(self, graph: fx.Graph) -> None:
        self._written = {m for n in graph.nodes for w in aliases.written(n) for m in aliases.storages(w)}
        self._results = graph.output_node().all_input_nodes
        self.shown = list(dict.fromkeys(map(aliases.root, self._results)))

    def is_shown(self, node: fx.Node) -> bool:
        """Whether a result lies in the memory of ``node``."""
        return any(aliases.storage(shown) == aliases.storage(node) for shown in self._results)

    def is_read_only(self, node: fx.Node, by_name: bool = False) -> bool:
        """Whether nothing is written to the memory of ``node``, and no view of it is a result.

        With ``by_name``, a result may be ``node`` by another name: ``joined.detach()``.
        """
        value, memory = node.meta["val"], aliases.storage(node)
        if not is_tensor(node) or value.layout is not torch.strided:
            return False
        shown = [r for r in self._results if aliases.storage(r) == memory]
        own = all(layout(r.meta["val"]) == layout(value) for r in shown) if by_name else shown in ([], [node])
        return memory is not None and memory not in self._written and own and len(shown) < 2

