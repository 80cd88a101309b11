"""Sizes that go with a moving position are made dynamic before they have been seen to change.

Dynamo makes a number dynamic when it changes between two calls. For a decode step that is too late. With the next context, the
capacity of the cache changes, and so do ints that repeat it, or that repeat the length of the series: each would cost one more
graph. So when a graph with moving positions is first compiled, these are marked as Dynamo would mark them one call later:

    - the size of a cache along the sliced dim, and not that of a table which is cut to the length of a series,
    - every int that equaled such a size, or a size that has changed meanwhile, when both were first seen,
    - every int that equals a size now which was another at first: the number of rows of a chunk, handed in beside it. One that
      has been the same in two graphs before stays: a cache meets the width of a window as it grows.

A prefill that advances an index from a constant marks the dims that it fills (`expect`), so that the decode step is traced
once. Otherwise the frame is traced again. That happens at the first slice of a cache at a position (`see_slice`), when little
has been traced in vain. Where only the normal form shows the slice, it happens before the graph is rewritten (`generalize`).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import Any, NoReturn

import torch
from torch import fx

from fxpass.analysis.sites import SliceSite
from fxpass.graph import aliases
from fxpass.graph.fixed_places import places_in
from fxpass.graph.inputs import dynamo_source
from fxpass.graph.numbers import hint
from fxpass.graph.schemas import memory_of
from fxpass.graph.values import example_value, fake_value
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.frames.compilation import compile_id, current_compilation
from fxpass.torch_internals.dynamo.frames.dynamic_marks import mark_int, mark_size
from fxpass.torch_internals.dynamo.frames.history import current_frame, history_of
from fxpass.torch_internals.dynamo.guards.frame_values import value_named
from fxpass.torch_internals.dynamo.names import (
    FrameStateSizeEntry,
    RestartAnalysis,
    TensorifyScalarRestartAnalysis,
    TensorPropertySource,
    auto_dynamic,
    config,
    update_automatic_dynamic,
)
from fxpass.torch_internals.symbols import free_symbols

Restart = RestartAnalysis
"""Raised to tell Dynamo to trace a frame again; it is no error."""


_sliced: weakref.WeakSet[fx.Graph] = weakref.WeakSet()
"""Graphs in which a cache has been sliced at a position."""


def forget() -> None:
    """Forget which graphs have been sliced."""
    _sliced.clear()


def see_int(tx: Any, name: str, value: int) -> None:
    """Note the ``value`` of the int called ``name``, and make it dynamic if it goes with numbers that are."""
    seen = history_of(tx.output.root_tx.f_code)
    first = seen.ints.setdefault(name, value)
    seen.ints_now[name] = value
    met = seen.met.setdefault(name, set())
    met.add(compile_id())
    moved = moved_sizes(tx) if value > 1 else set()
    goes_along = value in {b for _, b in moved} and (first != value or len(met) < 3)
    if value > 1 and (first in seen.tied | _changed(tx) | {a for a, _ in moved} or goes_along):
        mark_int(tx, name)


def see_slice(tx: Any, tensor: fx.Node, bounds: Mapping[int, slice]) -> None:
    """Mark the dims of graph inputs that go with a slice of ``tensor`` at a position; ``bounds`` are its slices by dim.

    Raises:
        RestartAnalysis: something was marked; Dynamo traces the frame again.
    """
    graph = tx.output.graph
    moving = {s for n in graph.find_nodes(op="placeholder") if _is_position(n) for s in free_symbols(fake_value(n))}
    dims = [d for d, bound in bounds.items() if free_symbols([_number(b) for b in (bound.start, bound.stop)]) & moving]
    if not dims or config.assume_static_by_default is False:
        return
    inputs = named_tensors(graph)
    memory = memory_of(fake_value(tensor))
    for node in inputs if memory is not None else ():
        if memory_of(fake_value(node)) == memory:
            places = [(node, d) for dim in dims if (d := _same_dim(fake_value(node), fake_value(tensor), dim)) is not None]
            if graph not in _sliced or any(isinstance(fake_value(node).shape[d], int) for _, d in places):
                _sliced.add(graph)
                _mark(tx.output.root_tx, inputs, places)


def make_place(tx: Any, name: str) -> None:
    """Make the int called ``name``, which says at which place of a list something is, a symbol from the start.

    Raises:
        RestartAnalysis: it has been a constant so far; Dynamo traces the frame again.
    """
    places = history_of(tx.output.root_tx.f_code).places
    if name not in places:
        places.add(name)
        restart(tx.output.root_tx, "kvfix: an int that says a place")


def generalize(gm: fx.GraphModule, sites: Iterable[SliceSite]) -> None:
    """Mark the dims of graph inputs that the ``sites`` of ``gm`` slice, and what goes with them; ``gm`` is in normal form.

    Raises:
        RestartAnalysis: something was marked; Dynamo traces the frame again.
    """
    tx = current_frame()
    if tx is None:
        return
    inputs, seen = named_tensors(gm.graph), history_of(tx.f_code)
    for node, name in inputs.items():
        seen.sizes.setdefault(name, _hints(node))
    roots = {root for n in gm.graph.nodes for w in aliases.written(n) if (root := aliases.root(w)) in inputs}
    seen.writes_now = {inputs[root]: places_in(root) for root in roots}
    seen.written |= seen.writes_now.keys()
    sites = list(sites)
    seen.slices |= bool(sites)
    sites = [s for s in sites if s.buffer in roots or _is_at_a_position(s)]
    if sites and config.assume_static_by_default is not False:
        _mark(tx, inputs, [p for s in sites if (p := _input_dim(s)) is not None and p[0] in inputs])


def expect(gm: fx.GraphModule, normal: fx.GraphModule) -> None:
    """In a graph that advances an index tensor, mark the dims of inputs along which it writes a part: the next graph would be
    traced twice for these. ``gm`` is the graph from Dynamo, and ``normal`` its normal form."""
    tx = current_frame()
    if tx is None or config.assume_static_by_default is False:
        return
    inputs = named_tensors(normal.graph)
    written = [w for n in normal.graph.nodes for w in aliases.written(n) if aliases.root(w) in inputs]
    history_of(tx.f_code).slices |= any(map(_is_part, _views(normal.graph, {aliases.root(w) for w in written})))
    places = [place for w in written for place in _parts(w)]
    if places and Table.of(gm.graph).moved():
        _mark(tx, inputs, places, again=False)


def _views(graph: fx.Graph, wholes: Collection[fx.Node]) -> Iterator[fx.Node]:
    """The tensors of ``graph`` that lie in the memory of ``wholes``."""
    return (n for n in graph.nodes if isinstance(fake_value(n), torch.Tensor) and aliases.root(n) in wholes)


def _is_part(view: fx.Node) -> bool:
    sizes, whole = _hints(view), _hints(aliases.root(view))
    return None not in (*sizes, *whole) and math.prod(sizes) < math.prod(whole)  # an unbacked size has no hint


def _parts(view: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """The graph input that ``view`` is a part of, with each dim along which it is only a part."""
    whole = aliases.root(view)
    while (base := aliases.base(view)) is not None:
        if view.target in (torch.ops.aten.slice.Tensor, torch.ops.aten.narrow.default):
            sliced = view.args[1] % fake_value(base).dim()  # type: ignore[operator]
            dim = _same_dim(fake_value(whole), fake_value(base), sliced)
            if dim is not None and hint(fake_value(view).shape[sliced]) != hint(fake_value(base).shape[sliced]):
                yield whole, dim
        view = base


def _mark(tx: Any, inputs: dict[fx.Node, str], places: list[tuple[fx.Node, int]], again: bool = True) -> None:
    """Mark the sizes at ``places``, and ints that go with dynamic sizes of ``inputs``. If any of these marks is new, Dynamo
    traces the frame once more, where that is to be done ``again``."""
    seen = history_of(tx.f_code)
    first = {n: seen.sizes.get(s, _hints(n)) for n, s in inputs.items()}
    changed = False
    for node, dim in places:
        if mark_size(tx, inputs[node], dim):
            changed = True
            for sibling in _siblings(tx, inputs[node]):
                mark_size(tx, sibling, dim)
    seen.tied |= {v for n in inputs for d, v in enumerate(first[n]) if not isinstance(fake_value(n).shape[d], int)}
    seen.tied |= {first[node][dim] for node, dim in places}
    changed |= any([mark_int(tx, name) for name, v in seen.ints.items() if v in seen.tied and v > 1])
    if changed and again:
        restart(tx, "kvfix: sizes that go with a moving position")


def restart(tx: Any, why: str) -> NoReturn:
    """Have Dynamo trace the frame of ``tx`` again."""
    tx.speculation_log.clear()
    raise TensorifyScalarRestartAnalysis(restart_reason=why)


def _changed(tx: Any) -> set[int]:
    """The first sizes of inputs that have changed since."""
    seen = history_of(tx.output.root_tx.f_code).sizes
    now = {name: update_automatic_dynamic(tx, name, FrameStateSizeEntry()).size for name in seen}
    return {v for name, first in seen.items() if isinstance(now[name], tuple)
            for v, size in zip(first, now[name], strict=False) if size is auto_dynamic}  # type: ignore[arg-type]  # fmt: skip


def moved_sizes(tx: Any) -> Set[tuple[int, int]]:
    """For each size of an input that differs from the one at first, that one and the size of now. They are looked at once in a
    compilation."""
    compilation = current_compilation()
    if compilation is None:
        return set()
    if compilation.moved_sizes is None:
        seen = history_of(tx.output.root_tx.f_code).sizes
        now = {name: value for name in seen if isinstance(value := value_named(tx, name), torch.Tensor)}
        pairs = [pair for name, value in now.items() for pair in zip(seen[name], value.shape, strict=False)]
        compilation.moved_sizes = {(first, size) for first, size in pairs if first != size}
    return compilation.moved_sizes


def _siblings(tx: Any, name: str) -> list[str]:
    """The other inputs that had the sizes of the one called ``name`` at first: the values beside keys, other layers."""
    sizes = history_of(tx.f_code).sizes
    return [other for other, seen in sizes.items() if other != name and seen == sizes.get(name)]


def _is_at_a_position(site: SliceSite) -> bool:
    """Whether a position says where the slice is. A table that is only cut to the length of a series keeps its size."""
    positions = filter(_is_position, site.node.graph.find_nodes(op="placeholder"))
    moving = {s for n in positions for s in free_symbols(fake_value(n))}
    return bool(moving & free_symbols([fake_value(b) for b in (site.start, site.end) if isinstance(b, fx.Node)]))


def _input_dim(site: SliceSite) -> tuple[fx.Node, int] | None:
    """The graph input that ``site`` slices, and the dim of it that is sliced; None if it is no graph input."""
    if site.buffer.op != "placeholder" or site.kind == "narrow":
        return None
    dim = _same_dim(fake_value(site.buffer), fake_value(site.base), site.dim)
    return None if dim is None else (site.buffer, dim)


def _same_dim(whole: torch.Tensor, view: torch.Tensor, dim: int) -> int | None:
    """The dim of ``whole`` that has the size and stride of ``dim`` of its ``view``; None if there is not exactly one."""
    wanted = hint(view.shape[dim]), hint(view.stride(dim))  # by hints: a comparison would guard
    same = [d for d in range(whole.dim()) if (hint(whole.shape[d]), hint(whole.stride(d))) == wanted]
    return same[0] if len(same) == 1 else None


def named_tensors(graph: fx.Graph) -> dict[fx.Node, str]:
    """The tensor inputs of ``graph`` that have a source, with its name."""
    inputs = [n for n in graph.find_nodes(op="placeholder") if isinstance(fake_value(n), torch.Tensor)]
    return {n: source.name for n in inputs if (source := dynamo_source(n)) is not None}


def _is_position(node: fx.Node) -> bool:
    """Whether the graph input ``node`` is a number that is no tensor's size."""
    return isinstance(fake_value(node), torch.SymInt) and not isinstance(dynamo_source(node), TensorPropertySource)


def _number(value: Any) -> Any:
    return example_value(value) if isinstance(value, fx.Proxy) else value if isinstance(value, int) else 0


def _hints(node: fx.Node) -> tuple[int, ...]:
    return tuple(map(hint, fake_value(node).shape))
