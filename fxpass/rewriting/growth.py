"""What grows becomes a buffer of a capacity, filled up to a length.

    past = placeholder [B, H, s, D]               past = placeholder [B, H, s, D]
                                                  buffer = placeholder [B, H, C, D]
    k = cat([past, new], 2)               ->      copy_(buffer[:, :, s:s + n], new)
                                                  k = buffer[:, :, :s + n]
    y = attention(q, k, v)                        y = attention(q, k, v)
    return y, k                                   return y, buffer

From here on the graph is like one whose cache was allocated in full, with ``s`` for its position. What fills the buffer, and
takes what was joined out of it, stands around the graph (`execute.growth`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents
from fxpass.analysis.growth import Growing, dense_order, growing, is_contiguous
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.shown import settled
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.insertion import call, take_line
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import input_sizes, symbols, to_expr

from .formulas import formula
from .joins import as_cats
from .sliced_results import SliceOf, sliced_results

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Axis:
    """One input that grows.

    place: which of the graph's inputs it is.
    dim: along which it grows.
    rows: how many rows a call adds: a number, or the input and the dim whose size that is.
    results: which of the graph's results are what was joined.
    views: those of them that are views of it, `joined[:, -8:]`, which Dynamo tells from a tensor of its own.
    """

    place: int
    dim: int
    rows: int | tuple[int, int]
    results: tuple[int, ...]
    views: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Around:
    """What stands around a graph that has buffers: plain data.

    axes: one for each buffer, in the order of these last inputs.
    cuts: the results that leave the graph in full; along which dims they are cut, and to which length, a `formula`.
    orders: the order in memory of the dims of those that are not contiguous.
    slices: the results that do not leave it, since they are slices of others.
    numbers: formulas for what stands in the graph's very last input, if there are any.
    """

    axes: Sequence[Axis] = ()
    cuts: dict[int, tuple[tuple[int, Any], ...]] = dataclasses.field(default_factory=dict)
    orders: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    slices: dict[int, SliceOf] = dataclasses.field(default_factory=dict)
    numbers: Sequence[Any] = ()

    @property
    def inputs(self) -> int:
        """How many of the graph's inputs are not given by its caller."""
        return len(self.axes) + bool(self.numbers)


@dataclasses.dataclass(frozen=True)
class Grown:
    """What `grow` made of a graph: the buffers ``around`` it; where lengths come from, and the symbols of ``lengths`` and of
    ``capacities``."""

    around: Around
    origins: dict[fx.Node, Origin]
    lengths: Set[Any]
    capacities: Set[Any]

    def seen(self, seen: Seen | None) -> Seen:
        """``seen``, and that a core is compiled for each capacity."""
        known = seen or Seen()
        return dataclasses.replace(known, kinds={**known.kinds, **dict.fromkeys(self.capacities, "variant")})

    def leave(self, result: fx.Node, extents: Extents, positions: Positions) -> bool:
        """Whether ``result`` of these ``extents`` can be cut outside: it is plain, of lengths that inputs tell."""
        returned = result.graph.output_node().all_input_nodes
        alone = all(aliases.storage(r) != aliases.storage(result) for r in returned if r is not result)
        order = dense_order(result)
        if not alone or order is None:
            return False
        inputs = result.graph.find_nodes(op="placeholder")
        given = inputs[: len(inputs) - len(self.around.axes)]
        try:
            cuts = tuple((dim, formula(extent.length, given, positions.resolve)) for dim, extent in extents.items())
        except ValueError:
            return False
        (results,) = result.graph.output_node().args
        places = [i for i, r in enumerate(results) if r is result]  # type: ignore[arg-type]
        self.around.cuts.update(dict.fromkeys(places, cuts))
        if not is_contiguous(result):
            self.around.orders.update(dict.fromkeys(places, order))
        return True


class Grower:
    """Gives buffers to what grows in a graph, by sizes that are ``moving`` and ``rising``, see `growing`; ``beyond`` makes a
    capacity for lengths. ``has_series``: whether what the caller alone makes longer is among what it has found."""

    def __init__(
        self,
        moving: Set[Any],
        rising: Sequence[Any],
        is_work: Callable[[fx.Node], bool],
        beyond: Callable[[Sequence[Any]], torch.SymInt],
    ) -> None:
        self._moving, self._rising = moving, rising
        self._is_work, self._beyond = is_work, beyond
        self.has_series = False

    def __call__(self, gm: fx.GraphModule) -> Grown | None:
        done = settled(gm.graph, self._moving)
        moving, rising = self._moving - done, [size for size in self._rising if not symbols(size) & done]
        if moving:
            as_cats(gm, moving)
        found = growing(gm.graph, moving, rising, self._is_work)
        self.has_series = any(one.is_series for one in found)
        return grow(gm, found, self._beyond([end for one in found for end in (one.size, one.end)])) if found else None


def grow(gm: fx.GraphModule, found: Sequence[Growing], capacity: torch.SymInt) -> Grown:
    """Give each input ``found`` to grow a buffer, a new last input of ``gm``; the lengths are positions from here on."""
    graph, inputs = gm.graph, gm.graph.find_nodes(op="placeholder")
    (results,) = graph.output_node().args
    returned = list(results)  # type: ignore[arg-type]
    moving = {s for one in found for s in symbols(one.size)}
    slices = sliced_results(returned, moving)
    for place in slices:
        returned[place] = None
    numbers = [n for n in inputs if isinstance(n.meta["val"], torch.SymInt) and symbols(n.meta["val"]) <= moving]
    origins = {n: Origin(n.name) for n in numbers}
    axes = []
    for one in found:
        rows = _rows(one, inputs)
        places = tuple(i for i, r in enumerate(returned) if one.join is not None and _is_of(r, one.join))
        views = tuple(i for i in places if returned[i] is not one.join and returned[i].target is not aten.detach.default)
        axes.append(Axis(inputs.index(one.node), one.dim, rows, places, views))
    with faking(mode_of([n.meta["val"] for n in inputs])):
        buffers = [_buffer(graph, one, capacity) for one in found]
        for one, buffer, made in zip(found, buffers, axes, strict=True):
            length = _use(graph, one, buffer)
            origins[length] = Origin(f"{one.node.name}.size({one.dim})")
            for place in made.results:
                returned[place] = buffer
    graph.output_node().args = (tuple(returned),)
    for node in dict.fromkeys([*results, *(one.join for one in found)]):
        if isinstance(node, fx.Node) and not node.users and node.op == "call_function":
            graph.erase_node(node)
    gm.recompile()
    return Grown(Around(axes, slices=slices), origins, moving, symbols(capacity))


def give_numbers(gm: fx.GraphModule, around: Around) -> Around:
    """Let the numbers that ``gm`` (rewritten, propagated) puts into tensors come in one tensor, a new last input.

        end = full([], n)       ->      end = select(numbers, 0, 0)

    Then nothing of it waits for a number, nor does a core depend on one that the caller keeps for a while.
    """
    graph, inputs = gm.graph, gm.graph.find_nodes(op="placeholder")
    given, device = inputs[: len(inputs) - len(around.axes)], inputs[-1].meta["val"].device
    found: dict[Any, list[fx.Node]] = {}
    for node in graph.find_nodes(op="call_function", target=aten.full.default):
        value = node.meta["val"]
        if not value.dim() and isinstance(node.args[1], fx.Node) and (value.dtype, value.device) == (torch.int64, device):
            with contextlib.suppress(ValueError):
                found.setdefault(formula(node.args[1], given), []).append(node)
    if not found:
        return around
    with faking(mode_of([n.meta["val"] for n in inputs])):
        numbers = _placeholder(graph, "numbers", torch.empty([len(found)], dtype=torch.int64, device=device))
        with graph.inserting_before(numbers.next):
            for i, nodes in enumerate(found.values()):
                made = call(graph, aten.select.int, numbers, 0, i)
                for node in nodes:
                    node.replace_all_uses_with(made)
    aliases.remove_dead(graph)
    gm.recompile()
    return dataclasses.replace(around, numbers=tuple(found))


def _is_of(result: Any, join: fx.Node) -> bool:
    return isinstance(result, fx.Node) and aliases.storage(result) == aliases.storage(join)


def _rows(one: Growing, inputs: Sequence[fx.Node]) -> Any:
    """How many rows are added, as `Axis` has it.

    Raises:
        Refusal: a number of rows that is the size of no input.
    """
    rows = to_expr(one.end - one.size)
    if isinstance(rows, int) or rows.is_Integer:
        return int(rows)
    for node, dim, size in input_sizes(one.node.graph):
        if to_expr(size) == rows:
            return inputs.index(node), dim
    raise Refusal(reasons.UNKNOWN_ROWS)


def _buffer(graph: fx.Graph, one: Growing, capacity: torch.SymInt) -> fx.Node:
    like = one.node.meta["val"]
    shape = [capacity if d == one.dim else size for d, size in enumerate(like.shape)]
    return _placeholder(graph, f"{one.node.name}_buffer", torch.empty(shape, dtype=like.dtype, device=like.device))


def _placeholder(graph: fx.Graph, name: str, value: torch.Tensor) -> fx.Node:
    """A new last input of ``graph``, which stays where it is."""
    with graph.inserting_after(graph.find_nodes(op="placeholder")[-1]):
        made = graph.placeholder(name)
    made.meta["val"] = value
    made.meta["tensor_dict"] = {"_dynamo_static_input_type": "guarded"}
    return made


def _use(graph: fx.Graph, one: Growing, buffer: fx.Node) -> fx.Node:
    """Let ``buffer`` stand for what grows, and for what it is joined to; the node that gives its length.

    What is read of the buffer keeps the value that it had, of memory of its own: nothing is written to it meanwhile.
    """
    past, dim, join = one.node, one.dim, one.join
    with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
        length = call(graph, aten.sym_size.int, past, dim)
        whole = call(graph, aten.slice.Tensor, buffer, dim, 0, length, like=past.meta["val"])
    if join is not None:
        with graph.inserting_before(join):
            parts = list(join.args[0])[1:]  # type: ignore[arg-type]
            new = parts[0] if len(parts) == 1 else call(graph, aten.cat.default, parts, dim)
            rows = new.meta["val"].shape[dim]  # type: ignore[union-attr]
            if not isinstance(rows, int):
                rows = call(graph, aten.sym_size.int, new, dim)
            end = call(graph, operator.add, length, rows)
            call(graph, aten.copy_.default, call(graph, aten.slice.Tensor, buffer, dim, length, end), new)
            joined = call(graph, aten.slice.Tensor, buffer, dim, 0, end, like=join.meta["val"])
        for node in (joined, new, end):
            take_line(node, join)
        join.replace_all_uses_with(joined, delete_user_cb=lambda user: user.op != "output")
    past.replace_all_uses_with(whole, delete_user_cb=lambda user: user.op != "output" and user not in (length, join))
    for node in [n for n in whole.users if n.target is aten.sym_size.int and n.args[1] == dim]:
        node.replace_all_uses_with(length)
        graph.erase_node(node)
    if not whole.users:
        graph.erase_node(whole)
    return length
