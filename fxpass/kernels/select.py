"""CUDA kernels for the few rows of a decode step, and the pass that puts them into a core.

    y = linear(x, w, b)              7 rows        ->    y = kvfix.linear_few_rows(x, w, b, 3, True).sum(0)
    o = sdpa(q, clean(k), clean(v),                ->    o = kvfix.decode_attention(q, k, v, length, mask, False, scale)
             attn_mask=valid & mask) few queries
    index_copy_(buf[c], 2, slots, k)               ->    kvfix.write_rows(buf[c], 2, slots, k)
                             of the rewrite's own

Products are replaced by `products`, with what is computed of their results by `gates`. Attention with a mask and two filled
copies of the cache becomes one kernel, which does not read invalid keys. All kernels accumulate in float32, and are as exact
as float32 where they are given float32. They are opaque operators, which take the compiler hardly any time. Inductor
can generate the write, and does so within the kernel that computes the rows (`torch_internals.inductor.row_writes`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.marks import Attention, Marks, given_to
from fxpass.graph.normal_form import faking, mode_of
from fxpass.rewriting.nodes import bits
from fxpass.torch_internals.inductor.row_writes import lower_writes

from .attention.own_rows import use_own_rows
from .attention.written_out import unrepeated, written_out
from .for_inductor.long_rows import cut_long_rows
from .for_inductor.pairs import use_pairs
from .launches.limits import FEW_QUERIES, FLOATS, HAS_TRITON, MAX_QUERIES, addressed
from .launches.memory_writes import MemoryWrites
from .products.few_rows import use_few_rows

if TYPE_CHECKING:
    from .launches.launch import Launch

aten = torch.ops.aten


def use_kernels(gm: fx.GraphModule, marks: Marks) -> None:
    """Replace ops of ``gm`` (rewritten and propagated, on CUDA) by kernels; ``marks`` are those of the rewrite."""
    if not HAS_TRITON:
        return
    writing = MemoryWrites(gm.graph)
    for node in list(gm.graph.nodes):
        if node in marks.in_bounds and _writes_rows(node):
            from .writes.write_rows import write_rows  # noqa: F401  (registers the op; needs triton)

            node.args = given_to(node)
            node.target = torch.ops.kvfix.write_rows.default
            node.meta["val"] = None
        elif node in marks.attentions:
            _attend(gm.graph, node, node.args[0], marks.attentions[node], writing, False)
        elif (found := written_out(node)) is not None:
            _attend(gm.graph, node, *found, writing, True)
        elif (whole := over_all_keys(node)) is not None:
            _attend(gm.graph, node, node.args[0], whole, writing, False)
    use_few_rows(gm.graph, MemoryWrites(gm.graph))
    use_pairs(gm.graph, MemoryWrites(gm.graph))
    aliases.remove_dead(gm.graph)
    use_own_rows(gm.graph, MemoryWrites(gm.graph))
    cut_long_rows(gm.graph)
    aliases.remove_dead(gm.graph)


def register() -> dict[Any, Callable[..., list[Launch]]]:
    """Register the operators. Returns what each of them will launch, see `compiling_kernels`; without triton there are none."""
    if not HAS_TRITON:
        return {}
    from .attention import few_queries
    from .products import linear
    from .writes import write_rows

    ops = torch.ops.kvfix
    return {
        ops.decode_attention.default: few_queries.launches,
        ops.write_and_attend.default: few_queries.launches_of_own,
        ops.linear_few_rows.default: linear.launches_of_one,
        ops.linears_few_rows.default: linear.launches,
        ops.gated_few_rows.default: linear.launches_of_gated,
        ops.write_rows.default: write_rows.launches,
    }


def compiled_meanwhile(gm: fx.GraphModule) -> contextlib.AbstractContextManager[None]:
    """A block in which the kernels that ``gm`` (static, propagated) calls are compiled."""
    if not any(getattr(n.target, "namespace", None) == "kvfix" for n in gm.graph.nodes):
        return contextlib.nullcontext()
    from .launches.launch import compiling_kernels

    launches = register()
    writes = torch.ops.kvfix.write_rows.default
    if lower_writes(writes):
        del launches[writes]
    return compiling_kernels(gm, launches)


def _attend(graph: fx.Graph, node: fx.Node, q: Any, parts: Attention, writing: MemoryWrites, nans: bool) -> None:
    """Let the kernel compute ``node``, the attention of ``q`` over ``parts``, if it is written for these. A query that sees no
    key gets NaN with ``nans``, and zeros otherwise."""
    from .attention.few_queries import decode_attention  # noqa: F401

    with graph.inserting_before(node):
        keys, values = (_once(part, node, writing) for part in (parts.keys, parts.values))
        if _few_queries(q, keys, values):
            args = (q, keys, values, parts.length, parts.mask, parts.is_causal, parts.scale, nans)
            new = graph.call_function(torch.ops.kvfix.decode_attention.default, args)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def over_all_keys(node: fx.Node) -> Attention | None:
    """What ``node`` computes, if it is attention of very few queries over keys that are all valid."""
    if node.target is not aten.scaled_dot_product_attention.default:
        return None
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")[: len(node.args)]
    given = dict(zip(names, node.args, strict=True)) | node.kwargs
    q, keys, values = (given[name] for name in ("query", "key", "value"))
    sizes = q.meta["val"].shape
    if not all(isinstance(s, int) for s in sizes) or sizes[-2] > FEW_QUERIES or given.get("dropout_p"):
        return None
    if not given.get("enable_gqa") and str(keys.meta["val"].shape[:-2]) != str(sizes[:-2]):
        return None
    scale = sizes[-1] ** -0.5 if given.get("scale") is None else given["scale"]
    return Attention(keys, values, None, given.get("attn_mask"), given.get("is_causal", False), scale)


def _once(node: fx.Node, user: fx.Node, writing: MemoryWrites) -> fx.Node:
    """The keys or values ``node`` as they lie in memory: not copied, and with no head repeated."""
    source, axes = unrepeated(_uncopied(node, user, writing))
    source = _uncopied(source, user, writing)
    if axes == [0, 1, 2, 3]:
        return source
    with faking(mode_of([source.meta["val"]])):
        return call(source.graph, aten.permute.default, source, axes)


def _uncopied(node: fx.Node, user: fx.Node, writing: MemoryWrites) -> fx.Node:
    """The node that ``node`` is a copy of, if ``user`` can read that instead: no op in between writes to either of them."""
    while node.target in _COPIES and isinstance(source := node.args[0], fx.Node):
        if source.meta["val"].dtype != node.meta["val"].dtype or source.meta["val"].device != node.meta["val"].device:
            break
        if any(writing.between(node, user, aliases.storage(n)) for n in (node, source)):
            break
        node = source
    return node


_COPIES = {aten.clone.default, aten.contiguous.default, aten.to.dtype, aten.alias.default, aten._to_copy.default}


def _writes_rows(node: fx.Node) -> bool:
    """Whether the kernel can write the rows of ``node``, which are known to lie within the buffer. A model's own
    ``index_copy_`` asserts that they do, and the kernel does not."""
    target, _, places, rows = given_to(node)
    buffer, slots, source = (n.meta["val"] for n in (target, places, rows))
    static = all(isinstance(s, int) for s in source.shape)
    if not static or node.users or bits.is_put(buffer.dtype):
        return False
    return 0 < buffer.dim() <= 4 and slots.dim() == 1 and addressed(buffer, source)


def _few_queries(query: fx.Node, *cached: fx.Node) -> bool:
    """Whether the kernel is written for attention of ``query`` over the keys and values ``cached``."""
    q, keys, values = (n.meta["val"] for n in (query, *cached))
    if q.dim() != 4 or keys.shape != values.shape:
        return False
    if q.shape[0] != keys.shape[0] or q.shape[1] % keys.shape[1] or q.shape[-1] != keys.shape[-1]:
        return False
    if not isinstance(q.shape[-2], int) or not 0 < q.shape[-2] <= MAX_QUERIES:
        return False
    same = q.dtype == keys.dtype == values.dtype and q.dtype in FLOATS
    return same and q.shape[-1] in (16, 32, 64, 128, 256) and addressed(keys, values)
