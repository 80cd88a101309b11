"""CUDA kernels for the few rows of a decode step, and the pass that puts them into a core.

    y = linear(x, w, b)              7 rows        ->    y = kvfix.linear_few_rows(x, w, b)
    o = sdpa(q, clean(k), clean(v),                ->    o = kvfix.decode_attention(q, k, v, length, mask, scale)
             attn_mask=valid & mask) 1 query
    index_copy_(buf[c], 2, slots, k)               ->    kvfix.write_rows(buf[c], 2, slots, k)
                             of the rewrite's own

cuBLAS reaches a fifth of the memory bandwidth on a product with seven rows, where reading the weights is all there is
to do. And a mask with two cleaned copies of the cache is one kernel that does not read what is not valid. Both
accumulate in float32 and use no TF32. Each is an opaque operator to the compiler, which traces and lowers it in no time: in a
recording, nothing but the kernel is left of a call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.marks import Attention, Marks
from fxpass.torch_internals.operators import OpOverload

aten = torch.ops.aten

MAX_ROWS = 8
"""Products with more rows than this are left to cuBLAS, which is then better."""


def use_kernels(gm: fx.GraphModule, marks: Marks) -> None:
    """Replace what the kernels cover in ``gm`` (rewritten and propagated, on CUDA); ``marks`` are the rewrite's."""
    if importlib.util.find_spec("triton") is None:
        return
    writes = _Writes(gm.graph)
    for node in list(gm.graph.nodes):
        if node.target is aten.linear.default and _few_rows(node):
            from .linear import linear_few_rows  # noqa: F401  (registers the op; needs triton)

            node.target = torch.ops.kvfix.linear_few_rows.default
            node.args = (*node.args, None)[:3]
        elif node.target is aten.index_copy_.default and node in marks.in_bounds and _writes_rows(node):
            from .writes import write_rows  # noqa: F401

            node.target = torch.ops.kvfix.write_rows.default
            node.meta["val"] = None
        elif node in marks.attentions and _one_query(node, marks.attentions[node]):
            _attend(gm.graph, node, marks.attentions.pop(node), writes)
    aliases.remove_dead(gm.graph)


def register() -> dict[Any, Callable[..., Any]]:
    """Register the operators, and say what each will launch (see `launch.compiling`); without triton there are none."""
    if importlib.util.find_spec("triton") is None:
        return {}
    from . import attention, linear, writes

    modules = {"decode_attention": attention, "linear_few_rows": linear, "write_rows": writes}
    return {getattr(torch.ops.kvfix, name).default: module.launch for name, module in modules.items()}


def compiled_meanwhile(gm: fx.GraphModule) -> contextlib.AbstractContextManager[None]:
    """A block in which the kernels that ``gm`` (static, propagated) calls are compiled."""
    if not any(getattr(n.target, "namespace", None) == "kvfix" for n in gm.graph.nodes):
        return contextlib.nullcontext()
    from .launch import compiling

    return compiling(gm, register())


def _attend(graph: fx.Graph, node: fx.Node, parts: Attention, writes: _Writes) -> None:
    from .attention import decode_attention  # noqa: F401

    keys, values = (_uncopied(part, node, writes) for part in (parts.keys, parts.values))
    with graph.inserting_before(node):
        args = (node.args[0], keys, values, parts.length, parts.mask, parts.scale)
        new = graph.call_function(torch.ops.kvfix.decode_attention.default, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _uncopied(node: fx.Node, user: fx.Node, writes: _Writes) -> fx.Node:
    """What ``node`` is a copy of, if ``user`` could as well read that: nothing writes to one of both in between."""
    while node.target in _COPIES and isinstance(source := node.args[0], fx.Node):
        if source.meta["val"].dtype != node.meta["val"].dtype or source.meta["val"].device != node.meta["val"].device:
            break
        if any(writes.between(node, user, aliases.storage(n)) for n in (node, source)):
            break
        node = source
    return node


class _Writes:
    """Where ``graph`` writes to which memory."""

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {n: i for i, n in enumerate(graph.nodes)}
        self._places: dict[int | None, list[int]] = {}
        for node, place in self._order.items():
            for target in _may_write(node):
                self._places.setdefault(aliases.storage(target), []).append(place)

    def between(self, first: fx.Node, last: fx.Node, memory: int | None) -> bool:
        """Whether an op between the two writes to ``memory``."""
        return any(self._order[first] < place < self._order[last] for place in self._places.get(memory, ()))


def _may_write(node: fx.Node) -> list[fx.Node]:
    """What ``node`` writes to: by its schema, or all that it takes where that does not say."""
    declares = isinstance(node.target, OpOverload) and node.target not in _SILENT
    if node.op != "call_function" or declares or node.target is operator.getitem:
        return aliases.written(node)
    return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]


_SILENT = {aten.batch_norm.default, aten.instance_norm.default}
"""Update their running statistics, which their schemas do not tell."""

_COPIES = {aten.clone.default, aten.contiguous.default, aten.to.dtype, aten.alias.default, aten._to_copy.default}


def _few_rows(node: fx.Node) -> bool:
    x, weight = node.args[0].meta["val"], node.args[1].meta["val"]  # type: ignore[union-attr]
    floats = (torch.float32, torch.bfloat16, torch.float16)
    if not all(isinstance(s, int) for s in (*x.shape, *weight.shape)):
        return False
    if x.device.type != "cuda" or x.dtype not in floats or weight.dtype != x.dtype or weight.dim() != 2:
        return False
    rows = x.numel() // max(x.shape[-1], 1)
    return weight.is_contiguous() and x.shape[-1] > 0 and rows <= MAX_ROWS and _addressed(x, weight)


def _writes_rows(node: fx.Node) -> bool:
    """Asked only where the rows are known to be in the buffer: a model's own ``index_copy_`` asserts that they are."""
    buffer, _, slots, source = (a.meta["val"] if isinstance(a, fx.Node) else a for a in node.args)  # type: ignore[union-attr]
    static = all(isinstance(s, int) for s in source.shape)
    if buffer.device.type != "cuda" or not static or node.users:
        return False
    return 0 < buffer.dim() <= 4 and slots.dim() == 1 and _addressed(buffer, source)


def _one_query(node: fx.Node, parts: Attention) -> bool:
    q = node.args[0].meta["val"]  # type: ignore[union-attr]
    keys, values = parts.keys.meta["val"], parts.values.meta["val"]
    if q.device.type != "cuda" or q.dim() != 4 or q.shape[-2] != 1 or parts.is_causal or keys.shape != values.shape:
        return False
    if q.shape[0] != keys.shape[0] or q.shape[1] % keys.shape[1] or q.shape[-1] != keys.shape[-1]:
        return False
    same = q.dtype == keys.dtype == values.dtype
    return same and q.shape[-1] in (16, 32, 64, 128, 256) and _addressed(keys, values)


def _addressed(*tensors: torch.Tensor) -> bool:
    """Whether offsets into these fit into 32 bits, in which the kernels reckon."""
    spans = (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors)
    return all(span < 2**31 for span in spans)
