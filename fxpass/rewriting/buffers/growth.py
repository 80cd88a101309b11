"""What grows becomes a buffer of a capacity, filled up to a length.

    past = placeholder [B, H, s, D]               past = placeholder [B, H, s, D]
                                                  buffer = placeholder [B, H, C, D]
    k = cat([past, new], 2)               ->      copy_(buffer[:, :, s:s + n], new)
                                                  k = buffer[:, :, :s + n]
    y = attention(q, k, v)                        y = attention(q, k, v)
    return y, k                                   return y, buffer

From here on the graph is like one whose cache was allocated in full, with ``s`` for its position. `execute.buffers.growth`
fills the buffer before a call, and takes what was joined out of it afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.growth import Growing, growing
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Origin
from fxpass.analysis.steady_sizes import settled
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import input_sizes, symbols, to_expr
from fxpass.rewriting.outside.around import Around, Axis
from fxpass.rewriting.outside.viewed_results import ViewOf, viewed_results

from .buffer_edits import buffer_for, length_node, use_buffer
from .joins import as_cats
from .min_max import as_one_of_two

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Grown:
    """What `grow` has made of a graph.

    given: the number of inputs that the graph came with.
    around: the buffers, and what has to be done around the graph.
    origins: those of the lengths, which are positions from here on.
    lengths, capacities: the symbols of the lengths and of the capacities.
    """

    given: int
    around: Around
    origins: dict[fx.Node, Origin]
    lengths: Set[Any]
    capacities: Set[Any]

    def seen(self, seen: Seen | None) -> Seen:
        """``seen``, with the capacities as variants: a core is compiled for each."""
        known = seen or Seen()
        return dataclasses.replace(known, kinds={**known.kinds, **dict.fromkeys(self.capacities, "variant")})


class Grower:
    """Gives buffers to what grows in a graph.

    moving, rising: the sizes that grow, see `growing`.
    is_work: whether an op is worth a buffer.
    beyond: makes the capacity for some lengths.
    name_of: the name of an input.
    has_series: whether an input that the caller alone makes longer has been found.
    in_vain: whether a minimum or maximum has been taken to be one of its operands, though nothing grows or has grown.
    """

    def __init__(
        self,
        moving: Set[Any],
        rising: Sequence[Any],
        is_work: Callable[[fx.Node], bool],
        beyond: Callable[[Sequence[Any]], torch.SymInt],
        name_of: Callable[[fx.Node], str],
    ) -> None:
        self._moving, self._rising = moving, rising
        self._is_work, self._beyond, self._name_of = is_work, beyond, name_of
        self.has_series = self.in_vain = False

    def __call__(self, gm: fx.GraphModule) -> Grown | None:
        has_chosen = as_one_of_two(gm, self._moving)
        done = settled(gm.graph, self._moving)
        moving, rising = self._moving - done, [size for size in self._rising if not symbols(size) & done]
        if moving:
            as_cats(gm, moving)
        output = gm.graph.output_node()
        (results,) = output.args
        given, viewed = viewed_results(results, moving)  # type: ignore[arg-type]
        output.args = (tuple(given),)
        found = growing(gm.graph, moving, rising, self._is_work)
        self.has_series, self.in_vain = any(one.is_series for one in found), has_chosen and not found and not done
        if not found:
            output.args = (results,)
            return None
        aliases.remove_dead(gm.graph)
        capacity = self._beyond([end for one in found for end in (one.size, one.end)])
        return grow(gm, found, capacity, self._name_of, viewed)


def grow(
    gm: fx.GraphModule,
    found: Sequence[Growing],
    capacity: torch.SymInt,
    name_of: Callable[[fx.Node], str],
    viewed: Mapping[int, ViewOf],
) -> Grown:
    """Give each input ``found`` to grow a buffer, a new last input of ``gm``; the lengths are positions from here on.

    Of the results, those ``viewed`` are taken from others.
    """
    graph, inputs = gm.graph, gm.graph.find_nodes(op="placeholder")
    (results,) = graph.output_node().args
    returned = list(results)  # type: ignore[arg-type]
    moving = _lengths(found)
    numbers = [n for n in inputs if isinstance(n.meta["val"], torch.SymInt) and symbols(n.meta["val"]) <= moving]
    origins = {n: Origin(name_of(n)) for n in numbers}
    axes = []
    with faking(mode_of([n.meta["val"] for n in inputs])):
        for one in found:
            rows = _rows(one, inputs)
            places = tuple(i for i, r in enumerate(returned) if one.joins and _is_of(r, one.joins[-1]))
            views = tuple(i for i in places if not _is_no_view(returned[i], one.joins[-1]))
            axes.append(Axis(inputs.index(one.node), one.dim, rows, places, views))
        buffers = [buffer_for(graph, one, capacity, name_of(one.node)) for one in found]
        known: list[tuple[Any, fx.Node, Any]] = []
        for one, buffer, made in zip(found, buffers, axes, strict=True):
            length = length_node(graph, one, known if symbols(one.size) - moving else [])
            use_buffer(graph, one, buffer, length)
            if length.target is aten.sym_size.int:
                origins[length] = Origin(f"{name_of(one.node)}.size({one.dim})")
                known += [] if isinstance(made.rows, int) else [(one.end, length, (inputs[made.rows[0]], made.rows[1]))]
            for place in made.results:
                returned[place] = buffer
    graph.output_node().args = (tuple(returned),)
    for node in dict.fromkeys([*results, *(join for one in found for join in reversed(one.joins))]):
        if isinstance(node, fx.Node) and not node.users and node.op == "call_function":
            graph.erase_node(node)
    gm.recompile()
    return Grown(len(inputs), Around(axes, viewed=dict(viewed)), origins, moving, symbols(capacity))


def _lengths(found: Sequence[Growing]) -> set[Any]:
    """The symbols of the sizes of what is ``found`` to grow. A mask that is as long as the cache with the rows that are joined
    to it has a symbol for their number in its size, too: the caller chooses it, and it is no length."""
    sizes = [symbols(one.size) for one in found]
    alone = {s for size in sizes if len(size) == 1 for s in size}
    rows = {s for one in found for s in symbols(one.end - one.size)} - alone
    return {s for size in sizes for s in size} - rows


def _is_of(result: Any, join: fx.Node) -> bool:
    return isinstance(result, fx.Node) and aliases.storage(result) == aliases.storage(join)


def _is_no_view(result: fx.Node, join: fx.Node | None) -> bool:
    """Whether ``result`` is no view of ``join`` in eager: it is ``join`` itself, where `to` or `contiguous` changes nothing, or
    is detached from it."""
    while result is not join:
        args, kwargs = fx.map_arg((result.args, result.kwargs), lambda n: n.meta["val"])
        if result.target is not aten.detach.default and result.target(*args, **kwargs) is not args[0]:  # type: ignore
            return False
        result = result.all_input_nodes[0]
    return True


def _rows(one: Growing, inputs: Sequence[fx.Node]) -> Any:
    """The number of rows that are added, in the form of `Axis.rows`.

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
