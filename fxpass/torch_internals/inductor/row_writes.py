"""Rows are written to a buffer by the kernel that Inductor makes of what computes them.

    k = rotate(sum(parts))                  one kernel
    write_rows(buffer, 2, slots, k)         ours           ->     buffer[.., slots[i], ..] = rotate(sum(parts))     one kernel

An operator of ours is opaque to Inductor, which stores all of its operands before it. Here Inductor is told, in its own terms,
what this one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxpass.torch_internals.contracts import internal

from .lowerings import lower


def lower_writes(op: Any) -> bool:
    """Let Inductor generate ``op``, which takes (buffer, dim, slots, source) and does what ``buffer.index_copy_`` does. Gives
    whether it does so. A slot outside of the buffer fails an assertion on the device, as with ``index_copy_``."""
    return lower(op, _write)


def _write(buffer: Any, dim: int, slots: Any, source: Any) -> None:
    """Register the write, of values that are computed in it, with the graph that is being lowered."""
    graph, ops = internal("torch._inductor.virtualized.V").graph, internal("torch._inductor.virtualized.ops")
    rows, slot_at = buffer.get_size()[dim], slots.make_loader()

    def place(index: Sequence[Any]) -> list[Any]:
        slot = ops.indirect_indexing(slot_at([index[dim]]), rows, wrap_neg=False)
        return [*index[:dim], slot, *index[dim + 1 :]]

    if buffer.get_name() in source.get_read_names():
        source.realize()
    values = internal("torch._inductor.ir.Scatter")(
        device=buffer.get_device(),
        dtype=buffer.get_dtype(),
        inner_fn=source.make_loader(),
        ranges=source.get_size(),
        output_indexer=place,
    )
    layout = internal("torch._inductor.ir.MutationLayoutSHOULDREMOVE")(buffer)
    written = internal("torch._inductor.ir.ComputedBuffer")(name=None, layout=layout, data=values)
    written.name = graph.register_buffer(written)
    graph.register_operation(written)
