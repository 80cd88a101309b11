"""A tensor that one call returns and the next makes longer has a symbol for its size, and for its strides, from the first step.

    graph 0    prompt, no past          returns k: [1, 2, 12, 8]
    graph 1    past: [1, 2, 12, 8]      returns cat([past, new], 2)         past: [1, 2, s, 8] from here on

Dynamo would take the size for a constant until it has seen a second one, and make a graph for the first. It would also guard
that the strides are those of a contiguous tensor, or of a view of one. Where a caller takes some rows back, as in
``past[:, :, :-2]``, that would cost more graphs. Inputs that a graph writes are left to Dynamo: how they lie in a base decides
which other tensors change. So are the buffers of modules, of which Dynamo takes all sizes for constants for good, until one has
another size than it had, in a frame that makes it longer.

The dim is told when Dynamo meets the input, by where its size comes from: ``past`` is new, has the sizes of a result, and 12
was the size of another input, the prompt, which has another one now. Where that leaves it open, as for a prompt of 8 tokens and
heads of 8, the graph is traced to its end, and once more when that has shown what it makes longer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Set
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.analysis.growth import made_longer
from fxpass.graph import aliases
from fxpass.graph.inputs import dynamo_source
from fxpass.graph.numbers import hint, symbols
from fxpass.torch_internals.dynamo.frames.dynamic_marks import fix_size, mark_size
from fxpass.torch_internals.dynamo.frames.history import FrameHistory, current_frame, history_of
from fxpass.torch_internals.dynamo.names import config
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.symbols import DimDynamic, StatelessSymbolicContext

from .dynamism import moved_sizes, named_tensors, restart


def install(is_ours: Callable[[Any], bool]) -> None:
    """Install the hook; ``is_ours(compiler_fn)`` says whether a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.builder._automatic_dynamic", functools.partial(_automatic_dynamic, is_ours))


def foresee(normal: fx.GraphModule) -> None:
    """Note what the graph ``normal`` makes longer. Where earlier graphs have returned such a tensor, its size is made dynamic.

    Raises:
        RestartAnalysis: a size has been made dynamic, or a tensor that was noted is written; Dynamo traces the frame again.
    """
    tx = current_frame()
    if tx is None or not _are_fixed_first():
        return
    graph, inputs, seen = normal.graph, named_tensors(normal.graph), history_of(tx.f_code)
    memories = {m for n in graph.nodes for w in aliases.written(n) for m in aliases.storages(w)}
    written = {name for n, name in inputs.items() if aliases.storage(n) in memories}
    longer = {n: dim for n, dim in made_longer(graph).items() if n in inputs and inputs[n] not in written}
    names = {inputs[n] for n in longer}
    taken_back = _leave(tx, seen, (seen.longer.keys() & written) | (seen.foreseen.keys() - names)) & written
    seen.longer |= {inputs[n]: dim for n, dim in longer.items()}
    new = [(n, dim) for n, dim in longer.items() if inputs[n] not in seen.dynamic_in_vain]
    known = [(n, dim) for n, dim in new if any(_is_part(n, dim, *of) for of in seen.returned)]
    returned = [n.meta["val"] for n in graph.output_node().all_input_nodes if isinstance(n.meta["val"], torch.Tensor)]
    seen.returned |= {(tuple(map(hint, value.shape)), value.dtype) for value in returned}
    marked = [inputs[n] for n, dim in known if mark_size(tx, inputs[n], dim)]
    seen.foreseen |= {inputs[n]: (dim, n.meta["val"].shape[dim]) for n, dim in known if inputs[n] in {*marked, *seen.foreseen}}
    if taken_back or marked:
        restart(tx, "kvfix: what a call has returned is made longer")
    _free_offsets(graph, longer)


def settle(in_vain: bool = False, grown: Iterable[tuple[fx.Node, int]] = ()) -> None:
    """Let the sizes that have been made dynamic here stay so. If that was ``in_vain``, they are left to Dynamo instead.

    The inputs that the graph has ``grown``, each along a dim, are known to grow in further graphs of the frame.

    Raises:
        RestartAnalysis: the graph has symbols for such sizes, and is to have none; Dynamo traces the frame again.
    """
    tx = current_frame()
    if tx is None:
        return
    seen = history_of(tx.f_code)
    sources = [(dynamo_source(node), dim) for node, dim in grown]
    seen.grown |= {(source.name, dim) for source, dim in sources if source is not None}
    are_symbols = any(symbols(size) for _, size in seen.foreseen.values())
    if in_vain:
        _leave(tx, seen, set(seen.foreseen))
    seen.foreseen = {}
    if in_vain and are_symbols:
        restart(tx, "kvfix: what a call has returned is made longer")


def _leave(tx: Any, seen: FrameHistory, names: Set[str]) -> Set[str]:
    """Leave the inputs called ``names`` to Dynamo from now on; gives these."""
    for name in names & seen.foreseen.keys():
        dim, size = seen.foreseen.pop(name)
        fix_size(tx, name, dim, hint(size))
    seen.longer = {name: dim for name, dim in seen.longer.items() if name not in names}
    seen.dynamic_in_vain |= names
    return names


def _free_offsets(graph: fx.Graph, inputs: Iterable[fx.Node]) -> None:
    """Let ``inputs`` lie anywhere in their memory. PyTorch supposes that an offset that is a symbol is at least 2, as a size
    is."""
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
    """Whether ``node`` may be a tensor of ``sizes`` and ``dtype``, or a part of it along ``dim``."""
    value = node.meta["val"]
    own = tuple(map(hint, value.shape))
    return value.dtype == dtype and len(own) == len(sizes) and _is_shorter(own, sizes, dim)


def _is_shorter(own: tuple[int, ...], sizes: tuple[int, ...], dim: int) -> bool:
    """Whether ``own`` sizes are ``sizes``, or smaller ones along ``dim`` alone."""
    return own[dim] <= sizes[dim] and (*own[:dim], *own[dim + 1 :]) == (*sizes[:dim], *sizes[dim + 1 :])


def _automatic_dynamic(
    is_ours: Callable[..., bool], stock: Any, e: Any, tx: Any, source: Any, static_shapes: bool, *args: Any, **kwargs: Any
) -> Any:
    """Make the size of a tensor that grows, and its strides, symbols from the first step on.

    So are those of a module's buffer that has been replaced by a longer one. Otherwise, buffers have fixed sizes.
    """
    if not is_ours(tx.output.compiler_fn) or type(e) is torch.nn.Parameter:
        return stock(e, tx, source, static_shapes, *args, **kwargs)
    frame, name = tx.output.root_tx, source.name
    seen = history_of(frame.f_code)
    told = _longer_dim(frame, name, e)
    if static_shapes and name in seen.longer and seen.sizes.get(name, e.shape) != e.shape:
        told = seen.longer[name]
    context = stock(e, tx, source, static_shapes and told is None, *args, **kwargs)
    if told is not None and mark_size(frame, name, told):
        seen.longer[name], seen.foreseen[name] = told, (told, e.shape[told])
        context = stock(e, tx, source, False, *args, **kwargs)
    dim = seen.longer.get(name)
    if dim is None or dim >= e.dim() or context.dynamic_sizes[dim] is DimDynamic.STATIC:
        return context
    strides = [DimDynamic.DYNAMIC if e.stride(d) > 1 else s for d, s in enumerate(context.dynamic_strides)]
    return dataclasses.replace(context, dynamic_strides=strides, view_base_context=_fixed(e._base))


def _longer_dim(tx: Any, name: str, tensor: torch.Tensor) -> int | None:
    """The dim along which the graph will make the input ``tensor``, called ``name``, longer, as far as inputs tell.

    The input must be new, and must be a tensor that has been returned, or a part of one along this dim. No other dim of the
    returned tensor may have a first size of an input that has another size now. None where the inputs do not tell.
    """
    seen = history_of(tx.f_code)
    if name in {*seen.sizes, *seen.longer, *seen.dynamic_in_vain} or not seen.returned or not _are_fixed_first():
        return None
    of = [sizes for sizes, dtype in seen.returned if dtype == tensor.dtype and len(sizes) == tensor.dim()]
    fits = [(d, sizes[d]) for sizes in of for d in range(tensor.dim()) if _is_shorter(tuple(tensor.shape), sizes, d)]
    left = {first for first, _ in moved_sizes(tx)} if fits else set()
    dims = {d for d, size in fits if size in left}
    return dims.pop() if len(dims) == 1 else None


def _are_fixed_first() -> bool:
    """Whether Dynamo takes sizes for constants until they have been seen to change, as without ``dynamic``."""
    return config.automatic_dynamic_shapes and config.assume_static_by_default is not False


def _fixed(base: torch.Tensor | None) -> Any:
    """The context of ``base``, of which an input is a view. Its sizes are constants, since there might be guards on symbols."""
    if base is None:
        return None
    return StatelessSymbolicContext([DimDynamic.STATIC] * base.dim(), view_base_context=_fixed(base._base))
