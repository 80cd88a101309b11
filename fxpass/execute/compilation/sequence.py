"""The pieces of a graph run one after the other, as one function; what can be recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.execute.partition.repeats import Call
from fxpass.execute.recording.graphs import Recorded, on_device
from fxpass.graph import aliases
from fxpass.graph.propagate import value_of
from fxpass.torch_internals.inductor.tuning import timed_by


class Sequenced:
    """``gm`` as a sequence of ``calls``; ``compiled`` holds the function of each piece, by the piece's id. A value is released
    after its last use."""

    def __init__(self, gm: fx.GraphModule, calls: Sequence[Call], compiled: Mapping[int, Callable[..., Any]]) -> None:
        places: dict[fx.Node, int] = {n: i for i, n in enumerate(gm.graph.find_nodes(op="placeholder"))}
        self._constants = []
        for node in gm.graph.find_nodes(op="get_attr"):
            self._constants.append(value_of(gm, node))
            places[node] = len(places)
        for call in calls:
            for node in call.gives:
                places[node] = len(places)
        (results,) = gm.graph.output_node().args
        self._gives = [(places[r], None) if isinstance(r, fx.Node) else (None, r) for r in results]  # type: ignore
        last = {places[n]: i for i, call in enumerate(calls) for n in call.takes}
        last |= {place: len(calls) for place, _ in self._gives if place is not None}
        self._size = len(places)
        self._steps = []
        for i, call in enumerate(calls):
            run = _view(call) if call.piece is None else compiled[id(call.piece)]
            done = [place for place in {places[n] for n in (*call.takes, *call.gives)} if last.get(place, i) <= i]
            self._steps.append((run, [places[n] for n in call.takes], [places[n] for n in call.gives], done))

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        values: list[Any] = [*args, *self._constants]
        values += [None] * (self._size - len(values))
        del args
        for run, takes, gives, done in self._steps:
            for place, value in zip(gives, run(*(values[i] for i in takes)), strict=True):
                values[place] = value
            for place in done:
                values[place] = None
        return tuple(constant if place is None else values[place] for place, constant in self._gives)


def _view(call: Call) -> Callable[..., Any]:
    (node,) = call.gives
    operands = list(node.all_input_nodes)

    def run(*values: Any) -> tuple[Any]:
        known = dict(zip(operands, values, strict=True))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
        return (node.target(*args, **kwargs),)  # type: ignore[operator]

    return run


def may_record(gm: fx.GraphModule) -> bool:
    """Whether ``gm`` can be recorded: it is on one GPU, 0-d constants aside, and has no op that a CUDA graph cannot hold."""
    from fxpass.torch_internals.inductor.names import get_first_incompatible_cudagraph_node

    devices = set()
    for node in gm.graph.nodes:
        value = None if node.op == "output" else value_of(gm, node)
        for v in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(v, torch.Tensor) and (v.dim() or node.all_input_nodes or node.op == "placeholder"):
                devices.add(v.device)
    return len(devices) == 1 and devices.pop().type == "cuda" and get_first_incompatible_cudagraph_node(gm) is None


def recorded(run: Callable[..., Sequence[Any]], gm: fx.GraphModule, static: Sequence[int]) -> Callable[..., Any]:
    """``run``, which takes the inputs of ``gm``, recorded as CUDA graphs.

    ``static`` lists the inputs with static addresses, among them all inputs that ``gm`` writes. An input
    that shares memory with one of these is read where it is, too: a copy of it would miss what ``run`` writes.
    """
    inputs = gm.graph.find_nodes(op="placeholder")
    written = aliases.written_inputs(gm.graph)
    memories = {aliases.storage(n) for n in written}
    tensors = [i for i, n in enumerate(inputs) if isinstance(value_of(gm, n), torch.Tensor)]
    kept = [i for i in tensors if i in set(static) or aliases.storage(inputs[i]) in memories]
    return Recorded(
        _timed_in_recordings(run),
        on_device(value_of(gm, inputs[tensors[0]]).device.index),
        static=kept,
        copied=[i for i in tensors if i not in set(kept)],
        written=[i for i in tensors if inputs[i] in written],
        sizes=[i for i in range(len(inputs)) if i not in set(tensors)],
    )


def _timed_in_recordings(run: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """``run``, whose first call chooses the configurations of Inductor's kernels by how long they take in a recording."""

    def call(*args: Any) -> Sequence[Any]:
        from fxpass.kernels.products.clock import replayed

        with timed_by(replayed):
            return run(*args)

    return call
