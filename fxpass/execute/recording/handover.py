"""A prologue writes what a recorded core takes to where the core reads it.

    prologue    s = scale(x); return s                      s = scale(x); buffer.copy_(s)
    core        reads a copy of s in its own memory   ->    reads buffer, whose address stays

A CUDA graph takes its inputs at fixed addresses. An input that may have moved is copied there, which is one kernel launch each.
The kernels of the prologue can write there directly.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import fx

from fxpass.execute.partition.split import Part
from fxpass.graph import aliases

aten = torch.ops.aten


def hand_over(gm: fx.GraphModule, parts: Sequence[Part]) -> list[fx.Node]:
    """Let the dynamic ``parts`` of ``gm`` write what a static part alone takes into buffers; the parts are edited in place.

    Returns a placeholder for each buffer. It is an input of both parts, and none of ``gm``.
    """
    buffers: list[fx.Node] = []
    shown = gm.graph.output_node().all_input_nodes + [w for n in gm.graph.nodes for w in aliases.written(n)]
    kept = {aliases.storage(n) for n in shown}
    for i, part in enumerate(parts):
        if part.static:
            continue
        for node in list(part.outputs):
            takers = [p for p in parts[i + 1 :] if node in p.inputs]
            if len(takers) == 1 and takers[0].static and _may_be_copied(node, kept):
                buffers.append(_buffer(node, len(buffers)))
                _write(part, node, buffers[-1])
                takers[0].inputs[takers[0].inputs.index(node)] = buffers[-1]
                takers[0].addresses.add(buffers[-1])
    return buffers


def _may_be_copied(node: fx.Node, kept: set[int | None]) -> bool:
    """Whether ``node`` has a fixed size, and does not lie in the memory ``kept``, which is written or seen by the caller."""
    value, memory = node.meta["val"], aliases.storage(node)
    if memory is None or not all(isinstance(s, int) for s in (*value.shape, *value.stride())):
        return False
    return memory not in kept


def _buffer(node: fx.Node, number: int) -> fx.Node:
    placeholder = fx.Graph().placeholder(f"buffer_{number}")
    placeholder.meta["val"] = node.meta["val"].clone()
    return placeholder


def _write(part: Part, node: fx.Node, buffer: fx.Node) -> None:
    graph, output = part.gm.graph, part.gm.graph.output_node()
    (given,) = output.args
    place = part.outputs.index(node)
    last = graph.find_nodes(op="placeholder")[-1:]
    with graph.inserting_after(last[0]) if last else graph.inserting_before(next(iter(graph.nodes))):
        target = graph.placeholder(buffer.name)
    target.meta["val"] = buffer.meta["val"]
    with graph.inserting_before(output):
        copy = graph.call_function(aten.copy_.default, (target, given[place]))  # type: ignore[index]
    copy.meta["val"] = buffer.meta["val"]
    output.args = ((*given[:place], *given[place + 1 :]),)  # type: ignore[index]
    part.inputs.append(buffer)
    del part.outputs[place]
    part.gm.recompile()


class Buffers(threading.local):
    """The tensors for the placeholders ``nodes``. Each thread has its own, as it has its own recordings."""

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self._values = [n.meta["val"] for n in nodes]
        self._tensors: list[torch.Tensor] | None = None

    def tensors(self) -> list[torch.Tensor]:
        """One tensor for each placeholder, the same on every call. They can be written in any grad mode."""
        if self._tensors is None:
            with torch.inference_mode(False):
                self._tensors = [
                    torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=v.device) for v in self._values
                ]
        return self._tensors
