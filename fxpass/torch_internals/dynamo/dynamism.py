"""Sizes that go with a moving position: made dynamic before they have been seen to change.

Dynamo makes a number dynamic when it changes between two calls. For a decode step that is too late: the capacity of the
cache, the ints that repeat it, and the ints that repeat the length of the series change with the next context, and each
would cost one more graph. So when a graph with moving positions is first compiled,

    - the size of a cache along the sliced dim,
    - every int that was equal to such a size, or to a size that has changed meanwhile, when both were first seen

are marked as Dynamo's automatic dynamic shapes would have marked them one call later. A prefill marks what it fills while an
index moves on from a constant (`expect`): the decode step is then traced once. Otherwise the frame is traced again: from its
first slice of a cache at a position (`see_slice`), so that little has been traced in vain, or, where the slice is not plain to
see before the graph is in its normal form, from the end (`generalize`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

import torch
from torch import fx
from torch.utils.weak import WeakIdKeyDictionary

from fxpass.analysis.calls import CallHistory
from fxpass.analysis.sites import SliceSite
from fxpass.graph import aliases
from fxpass.index_tensors.history import ElementHistory
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.dynamo.names import (
    FrameStateSizeEntry,
    InstructionTranslator,
    RestartAnalysis,
    TensorifyScalarRestartAnalysis,
    TensorPropertySource,
    auto_dynamic,
    config,
    update_automatic_dynamic,
)
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.symbols import free_symbols

Restart = RestartAnalysis
"""How Dynamo is told to trace a frame again: not an error."""


@dataclasses.dataclass
class _Seen:
    """What was first seen of a frame's numbers, by the names of their sources."""

    ints: dict[str, int] = dataclasses.field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    elements: dict[str, ElementHistory] = dataclasses.field(default_factory=dict)
    now: dict[str, int] = dataclasses.field(default_factory=dict)
    calls: CallHistory = dataclasses.field(default_factory=CallHistory)
    fixed: dict[str, set[tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    kept: dict[str, set[float]] = dataclasses.field(default_factory=dict)
    slices: bool = False
    tied: set[int] = dataclasses.field(default_factory=set)


_frames: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""By code object, as long as it lives: two that are equal, made from one text, are two."""
_sliced: weakref.WeakSet[fx.Graph] = weakref.WeakSet()
"""Graphs in which a cache has been sliced at a position."""


def forget() -> None:
    """Forget what was first seen."""
    _frames.clear()
    _sliced.clear()


def _seen_of(code: CodeType) -> _Seen:
    return _frames.setdefault(code, _Seen())


def see_int(tx: Any, name: str, value: int) -> None:
    """Remember the first ``value`` of the int called ``name``; make it dynamic if it goes with what already is."""
    seen = _seen_of(tx.output.root_tx.f_code)
    first = seen.ints.setdefault(name, value)
    seen.now[name] = value
    if value > 1 and (first in seen.tied or first in _changed(tx)):
        _mark_int(tx, name)


def current_code() -> CodeType | None:
    """The code of the frame that Dynamo is compiling, if it is."""
    tx = _current_frame()
    return None if tx is None else tx.f_code


@contextlib.contextmanager
def following(code: CodeType) -> Iterator[None]:
    """What moves is followed in the block, also where ``dynamic=False`` fixes all sizes: in a frame that slices caches."""
    new = code not in _frames
    with config.patch(automatic_dynamic_shapes=True) if new or _seen_of(code).slices else contextlib.nullcontext():
        yield


def calls_of(code: CodeType) -> tuple[CallHistory, dict[str, int]]:
    """What has been seen of the calls of a frame, and its ints as they are now."""
    seen = _seen_of(code)
    return seen.calls, dict(seen.now)


def see_slice(tx: Any, tensor: fx.Node, bounds: Mapping[int, slice]) -> None:
    """``tensor``, of the graph being captured, is sliced by the ``bounds`` along these dims.

    Raises:
        RestartAnalysis: something was marked; Dynamo traces the frame again.
    """
    graph = tx.output.graph
    moving = {s for n in graph.find_nodes(op="placeholder") if _is_position(n) for s in free_symbols(_value(n))}
    dims = [d for d, bound in bounds.items() if free_symbols([_number(b) for b in (bound.start, bound.stop)]) & moving]
    if not dims or config.assume_static_by_default is False:
        return
    inputs = _tensors(graph)
    memory = _value(tensor).untyped_storage()._cdata
    for node in inputs:
        if _value(node).untyped_storage()._cdata == memory:
            places = [(node, d) for dim in dims if (d := _same_dim(_value(node), _value(tensor), dim)) is not None]
            if graph not in _sliced or any(isinstance(_value(node).shape[d], int) for _, d in places):
                _sliced.add(graph)
                _mark(tx.output.root_tx, inputs, places)


def see_elements(code: CodeType, name: str, values: tuple[int, ...]) -> ElementHistory:
    """What has been seen of the elements of the index tensor called ``name``, which are ``values`` now."""
    history = _seen_of(code).elements.setdefault(name, ElementHistory())
    history.see(values)
    return history


def see_sizes(code: CodeType, name: str, sizes: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The sizes that have been fixed for the index tensor called ``name``, these among them."""
    seen = _seen_of(code).fixed.setdefault(name, set())
    seen.add(sizes)
    return seen


def may_fix(code: CodeType, name: str, value: float, most: int) -> bool:
    """Whether the number called ``name`` may be fixed at ``value``, one of ``most``: what moves with every call may not."""
    seen = _seen_of(code)
    values = seen.kept.setdefault(name, set())
    if value not in values and values and (len(values) >= most or not seen.calls.repeated()):
        return False
    values.add(value)
    return True


def generalize(gm: fx.GraphModule, sites: Iterable[SliceSite]) -> None:
    """Mark what goes with the positions of ``gm``'s ``sites`` as dynamic; the graph is in normal form.

    Raises:
        RestartAnalysis: something was marked; Dynamo traces the frame again.
    """
    tx = _current_frame()
    if tx is None:
        return
    inputs = _tensors(gm.graph)
    for node, name in inputs.items():
        _seen_of(tx.f_code).sizes.setdefault(name, _hints(node))
    sites = list(sites)
    _seen_of(tx.f_code).slices |= bool(sites)
    if sites and config.assume_static_by_default is not False:
        _mark(tx, inputs, [p for s in sites if (p := _input_dim(s)) is not None and p[0] in inputs])


def expect(gm: fx.GraphModule, normal: fx.GraphModule) -> None:
    """Mark what the next graph would be traced twice for: where ``gm``, from Dynamo, moves an index tensor, the dims of
    inputs along which it (``normal``, its normal form) writes a part."""
    tx = _current_frame()
    if tx is None or config.assume_static_by_default is False:
        return
    inputs = _tensors(normal.graph)
    written = [w for n in normal.graph.nodes for w in aliases.written(n) if aliases.root(w) in inputs]
    _seen_of(tx.f_code).slices |= any(math.prod(_hints(w)) < math.prod(_hints(aliases.root(w))) for w in written)
    places = [place for w in written for place in _parts(w)]
    if places and Table.of(gm.graph).moved():
        _mark(tx, inputs, places, restart=False)


def _parts(view: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """The graph input that ``view`` is a part of, with each dim that is sliced on the way."""
    whole = aliases.root(view)
    while (base := aliases.base(view)) is not None:
        if view.target in (torch.ops.aten.slice.Tensor, torch.ops.aten.narrow.default):
            sliced = view.args[1] % _value(base).dim()  # type: ignore[operator]
            dim = _same_dim(_value(whole), _value(base), sliced)
            if dim is not None and _hint(_value(view).shape[sliced]) != _hint(_value(base).shape[sliced]):
                yield whole, dim
        view = base


def _mark(tx: Any, inputs: dict[fx.Node, str], places: list[tuple[fx.Node, int]], restart: bool = True) -> None:
    """Mark the sizes at ``places`` and all ints that go with what is dynamic among ``inputs``; restart if any is new."""
    seen = _seen_of(tx.f_code)
    first = {n: seen.sizes.get(s, _hints(n)) for n, s in inputs.items()}
    changed = False
    for node, dim in places:
        if _mark_size(tx, inputs[node], dim):
            changed = True
            for sibling in _siblings(tx, inputs[node]):
                _mark_size(tx, sibling, dim)
    seen.tied |= {v for n in inputs for d, v in enumerate(first[n]) if not isinstance(_value(n).shape[d], int)}
    seen.tied |= {first[node][dim] for node, dim in places}
    changed |= any([_mark_int(tx, name) for name, v in seen.ints.items() if v in seen.tied and v > 1])
    if changed and restart:
        tx.speculation_log.clear()
        raise TensorifyScalarRestartAnalysis(restart_reason="kvfix: sizes that go with a moving position")


def _changed(tx: Any) -> set[int]:
    """The first sizes of inputs that have had others since."""
    seen = _seen_of(tx.output.root_tx.f_code).sizes
    now = {name: update_automatic_dynamic(tx, name, FrameStateSizeEntry()).size for name in seen}
    return {v for name, first in seen.items() if isinstance(now[name], tuple)
            for v, size in zip(first, now[name], strict=False) if size is auto_dynamic}  # type: ignore[arg-type]  # fmt: skip


def _siblings(tx: Any, name: str) -> list[str]:
    """The other inputs that have been seen to be as large as the one called ``name``: its values, the next layer's."""
    sizes = _seen_of(tx.f_code).sizes
    return [other for other, seen in sizes.items() if other != name and seen == sizes.get(name)]


def _current_frame() -> Any:
    if not holds(Feature.CAPTURE):
        return None
    try:
        tx = InstructionTranslator.current_tx()
    except (AttributeError, AssertionError):
        return None  # not called by Dynamo
    return tx.output.root_tx


def _mark_int(tx: Any, name: str) -> bool:
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    if type(entry.scalar) is not int:
        return False
    entry.scalar = auto_dynamic
    return True


def _mark_size(tx: Any, name: str, dim: int) -> bool:
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    if not isinstance(entry.size, tuple) or type(entry.size[dim]) is not int:
        return False
    entry.size = (*entry.size[:dim], auto_dynamic, *entry.size[dim + 1 :])
    return True


def _input_dim(site: SliceSite) -> tuple[fx.Node, int] | None:
    """The graph input that ``site`` slices, and the dim of it that has the sliced dim's size and stride."""
    if site.buffer.op != "placeholder" or site.kind == "narrow":
        return None
    dim = _same_dim(_value(site.buffer), _value(site.base), site.dim)
    return None if dim is None else (site.buffer, dim)


def _same_dim(whole: torch.Tensor, view: torch.Tensor, dim: int) -> int | None:
    """The dim of ``whole`` that ``dim`` of its ``view`` is, if one has its size and stride."""
    wanted = _hint(view.shape[dim]), _hint(view.stride(dim))  # by hints: a comparison would guard
    same = [d for d in range(whole.dim()) if (_hint(whole.shape[d]), _hint(whole.stride(d))) == wanted]
    return same[0] if len(same) == 1 else None


def _tensors(graph: fx.Graph) -> dict[fx.Node, str]:
    """The tensor inputs of ``graph`` that come from the frame, with the names of their sources."""
    inputs = [n for n in graph.find_nodes(op="placeholder") if isinstance(_value(n), torch.Tensor)]
    return {n: name for n in inputs if (name := _source_name(n)) is not None}


def _is_position(node: fx.Node) -> bool:
    """Whether the graph input ``node`` is a number that is no tensor's size."""
    argument = node.meta.get("grapharg")
    source = None if argument is None else argument.source
    return isinstance(_value(node), torch.SymInt) and not isinstance(source, TensorPropertySource)


def _value(node: fx.Node) -> Any:
    return node.meta.get("example_value", node.meta.get("val"))


def _number(value: Any) -> Any:
    return _value(value.node) if isinstance(value, fx.Proxy) else value if isinstance(value, int) else 0


def _source_name(node: fx.Node) -> str | None:
    argument = node.meta.get("placeholder", node).meta.get("grapharg")
    return None if argument is None or argument.source is None else argument.source.name


def _hints(node: fx.Node) -> tuple[int, ...]:
    return tuple(_hint(size) for size in _value(node).shape)


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else size.node.hint
