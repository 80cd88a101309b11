"""Index tensors pass through a recorded core as values.

A CUDA graph is bound to addresses. Caches keep theirs (`addresses`). The small memory of an index tensor moves with every new
cache object, and each move would take another recording. So its contents are an input of the core, and its new contents a
result:

    idx[0] += 1 inside the core     ->        new = where(arange(2) == 0, idx[0] + 1, idx); return new       then idx.copy_(new)

An index tensor that is not written element by element is copied in the core, and the copy is written. One that the caller gets
a view of keeps its address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.index_tensors.small_tensors import MAX_ELEMENTS

from .index_vectors import as_value

aten = torch.ops.aten


def is_recorded(settings: Any, inputs: Sequence[Any]) -> bool:
    """Whether the core will be recorded as a CUDA graph."""
    return settings.compiler == "inductor" and asks_for_graphs(settings.inductor, inputs)


def asks_for_graphs(inductor: Mapping[str, Any], inputs: Sequence[Any]) -> bool:
    """Whether the config patches ``inductor`` ask for CUDA graphs, and one of ``inputs`` is on a GPU."""
    on_gpu = any(isinstance(v, torch.Tensor) and v.device.type == "cuda" for v in inputs)
    return on_gpu and bool(inductor.get("triton.cudagraphs"))


def carry_indices(gm: fx.GraphModule) -> list[fx.Node]:
    """Let ``gm`` take the small integer inputs that it writes as values, and give their new contents as values.

    The new contents become additional outputs of ``gm``, in the order of the placeholders that are returned.
    """
    output = next(n for n in gm.graph.nodes if n.op == "output")
    written = aliases.written_inputs(gm.graph)
    returned = {aliases.storage(r) for r in output.all_input_nodes}
    carried = [p for p in gm.graph.nodes if p in written and _is_index(p) and aliases.storage(p) not in returned]
    first = next(n for n in gm.graph.nodes if n.op != "placeholder")
    extra = []
    for placeholder in carried:
        contents = as_value(gm.graph, placeholder)
        if contents is not None:
            extra.append(contents)
            continue
        with gm.graph.inserting_before(first):
            local = gm.graph.call_function(aten.clone.default, (placeholder,))
        local.meta["val"] = placeholder.meta["val"]  # the memory that its views are of: it orders reads and writes
        placeholder.meta["val"] = placeholder.meta["val"].clone()
        placeholder.replace_all_uses_with(local, delete_user_cb=lambda user, local=local: user is not local)
        extra.append(local)
    output.args = ((*output.args[0], *extra),)
    gm.recompile()
    return carried


def _is_index(placeholder: fx.Node) -> bool:
    value = placeholder.meta["val"]
    static = all(isinstance(s, int) for s in value.shape)
    return static and not value.dtype.is_floating_point and value.numel() <= MAX_ELEMENTS
