"""What a call returns, the next one makes longer: from its first step on, such a tensor has a size of its own, and strides.

    graph 0    prompt, no past          returns k: [1, 2, 12, 8]
    graph 1    past: [1, 2, 12, 8]      returns cat([past, new], 2)         past: [1, 2, s, 8] from here on

Dynamo would take the size for a constant until it has seen a second one, and make a graph for the first. And it would guard
the strides to be those of a contiguous tensor, or of a view of one: where a caller takes some rows back, ``past[:, :, :-2]``,
that would cost more graphs. What a graph writes is left to Dynamo: how it lies in a base decides which other tensors change.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.analysis.growth import made_longer
from fxpass.graph import aliases
from fxpass.graph.numbers import hint, symbols
from fxpass.torch_internals.dynamo.names import FrameStateSizeEntry, config, update_automatic_dynamic
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.symbols import DimDynamic, StatelessSymbolicContext

from .dynamism import mark_size, restart, tensors_of
from .frames import current_frame, history_of


def install(is_ours: Callable[[Any], bool]) -> None:
    """Install the hook; ``is_ours(compiler_fn)`` says whether a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.builder._automatic_dynamic", functools.partial(_automatic_dynamic, is_ours))


def foresee(normal: fx.GraphModule) -> None:
    """Note what the graph ``normal`` makes longer, and make the sizes of it dynamic that graphs before have returned.

    Raises:
        RestartAnalysis: a size has been made dynamic, or is noted that the graph writes; Dynamo traces the frame again.
    """
    tx = current_frame()
    if tx is None or config.assume_static_by_default is False:
        return
    graph, inputs, seen = normal.graph, tensors_of(normal.graph), history_of(tx.f_code)
    memories = {m for n in graph.nodes for w in aliases.written(n) for m in aliases.storages(w)}
    written = {name for n, name in inputs.items() if aliases.storage(n) in memories}
    longer = {n: dim for n, dim in made_longer(graph).items() if n in inputs and inputs[n] not in written}
    before, taken_back = len(seen.foreseen), [seen.longer.pop(name) for name in written & seen.longer.keys()]
    seen.longer |= {inputs[n]: dim for n, dim in longer.items()}
    new = [(n, dim) for n, dim in longer.items() if inputs[n] not in seen.kept]
    known = [(n, dim) for n, dim in new if any(_is_part(n, dim, *of) for of in seen.returned)]
    returned = [n.meta["val"] for n in graph.output_node().all_input_nodes if isinstance(n.meta["val"], torch.Tensor)]
    seen.returned |= {(tuple(map(hint, value.shape)), value.dtype) for value in returned}
    seen.foreseen |= {inputs[n]: (dim, hint(n.meta["val"].shape[dim])) for n, dim in known if mark_size(tx, inputs[n], dim)}
    if taken_back or len(seen.foreseen) > before:
        restart(tx, "kvfix: what a call has returned is made longer")
    _free_offsets(graph, longer)


def settle(in_vain: bool = False) -> None:
    """The sizes that have just been made dynamic stay so, unless it was ``in_vain``: they are left to Dynamo then.

    Raises:
        RestartAnalysis: there are such sizes, and they are fixed again; Dynamo traces the frame again.
    """
    tx = current_frame()
    seen = None if tx is None else history_of(tx.f_code)
    if seen is None or not seen.foreseen:
        return
    foreseen, seen.foreseen = seen.foreseen, {}
    if in_vain:
        for name, (dim, size) in foreseen.items():
            _fix_size(tx, name, dim, size)
        seen.kept |= foreseen.keys()
        restart(tx, "kvfix: what a call has returned is made longer")


def _fix_size(tx: Any, name: str, dim: int, size: int) -> None:
    """Undo `mark_size`: the size is ``size`` until it is seen to be another."""
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    entry.size = (*entry.size[:dim], size, *entry.size[dim + 1 :])


def _free_offsets(graph: fx.Graph, inputs: Iterable[fx.Node]) -> None:
    """Let ``inputs`` lie anywhere in their memory. An offset that is a symbol is supposed to be 2 at least, as a size is; one
    that is 0 is no symbol, and there is no guard on it."""
    numbers = [n.meta["val"] for n in graph.nodes if n.users and isinstance(n.meta.get("val"), torch.SymInt)]
    used = {symbol for number in numbers for symbol in symbols(number)}
    offsets = [offset for n in inputs if isinstance(offset := n.meta["val"].storage_offset(), torch.SymInt)]
    for offset in offsets:
        env = offset.node.shape_env
        asked = {s for guard in env.guards for s in guard.expr.free_symbols}
        for symbol in symbols(offset) - asked - used:
            known = env.var_to_range[symbol]
            env.var_to_range[symbol] = type(known)(sympy.Integer(0), known.upper)


def _is_part(node: fx.Node, dim: int, sizes: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether ``node`` may be what has those ``sizes``, or have been cut out of it along ``dim``."""
    value = node.meta["val"]
    own = [hint(size) for size in value.shape]
    if value.dtype != dtype or len(own) != len(sizes) or own[dim] > sizes[dim]:
        return False
    return (*own[:dim], *own[dim + 1 :]) == (*sizes[:dim], *sizes[dim + 1 :])


def _automatic_dynamic(
    is_ours: Callable[..., bool], stock: Any, e: Any, tx: Any, source: Any, *args: Any, **kwargs: Any
) -> Any:
    """Let the strides of what grows be symbols."""
    context = stock(e, tx, source, *args, **kwargs)
    dim = history_of(tx.output.root_tx.f_code).longer.get(source.name) if is_ours(tx.output.compiler_fn) else None
    if dim is None or dim >= e.dim() or context.dynamic_sizes[dim] is DimDynamic.STATIC:
        return context
    strides = [DimDynamic.DYNAMIC if e.stride(d) > 1 else s for d, s in enumerate(context.dynamic_strides)]
    return dataclasses.replace(context, dynamic_strides=strides, view_base_context=_fixed(e._base))


def _fixed(base: torch.Tensor | None) -> Any:
    """The context of ``base``, which a view is of: its sizes are no symbols, on which there might be guards."""
    if base is None:
        return None
    return StatelessSymbolicContext([DimDynamic.STATIC] * base.dim(), view_base_context=_fixed(base._base))
