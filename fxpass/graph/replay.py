"""Ops of one kind are traced into aten once.

A model of twelve layers calls ``x.transpose(1, 2)`` twelve times, on tensors of the same shape and dtype. Each trace of it
gives the same aten op. So the first trace is remembered, and written down again for the other calls:

    a = x.transpose(1, 2)      traced:      a = aten.transpose.int(x, 1, 2)
    b = y.transpose(1, 2)      replayed:    b = aten.transpose.int(y, 1, 2)        with the fake tensor that Dynamo made

An op is traced each time if it takes symbolic numbers, becomes several aten ops, or returns something other than tensors. So is
every function that is not PyTorch's own, since its result may depend on anything.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import DisableTorchFunction, FakeTensor
from fxpass.torch_internals.operators import OpOverload
from fxpass.torch_internals.proxies import (
    extract_val,
    get_proxy_mode,
    get_proxy_slot,
    maybe_enable_thunkify,
    track_tensor,
)

from .numbers import layout

_LITERALS = (int, bool, str, type(None), type(...), torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclasses.dataclass
class _Answer:
    """The one aten op that a call became.

    node: the op.
    operands: for each of its operands, the place among those of the call.
    kind: what its result is.
    """

    node: fx.Node
    operands: dict[fx.Node, int]
    kind: Any


class Replaying(fx.Interpreter):
    """An interpreter, to be traced with `make_fx`, that traces ops of one kind once."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self._answers: dict[Any, _Answer | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run ``n``, or replay it. Gives the value of ``n``, and puts its aten op into the graph that is being traced."""
        mode = get_proxy_mode()
        if mode is None or not _of_torch(n):
            return super().run_node(n)
        tracer = mode.tracer
        operands: list[torch.Tensor] = []
        with self._set_current_node(n), DisableTorchFunction():  # what looks at the tensors here is not traced
            try:
                question = n.target, _kind(self.fetch_args_kwargs_from_env(n), operands)
                proxies = [_proxy(o, tracer) for o in operands]
            except _Unlike:
                question = None
            answer, value = self._answers.get(question), n.meta.get("example_value")
            if answer is not None and _result(value, operands) == answer.kind:
                _again(answer, proxies, value, tracer)
                return value
        count = len(tracer.graph.nodes)
        value = super().run_node(n)
        if question is not None:
            made = list(itertools.islice(reversed(tracer.graph.nodes), len(tracer.graph.nodes) - count))
            with DisableTorchFunction():
                self._answers[question] = _answer(made[::-1], value, operands, proxies, tracer)
        return value


def _of_torch(node: fx.Node) -> bool:
    """Whether ``node`` calls a function or method of PyTorch, which sees of its arguments what `_kind` tells."""
    if node.op != "call_function":
        return node.op == "call_method"
    if isinstance(node.target, (types.BuiltinFunctionType, OpOverload)):
        return True
    return str(getattr(node.target, "__module__", "")).startswith("torch.nn.functional")


class _Unlike(Exception):
    """Raised for a call that cannot be known to be of the same kind as another one."""


def _again(answer: _Answer, proxies: Sequence[fx.Proxy], value: Any, tracer: Any) -> None:
    """Write the op of ``answer`` into the traced graph once more, on the operands ``proxies``, with the result ``value``."""
    target: Any = answer.node.target
    args, kwargs = fx.node.map_arg((answer.node.args, answer.node.kwargs), lambda o: proxies[answer.operands[o]])
    name = tracer.graph._target_to_str(target.overloadpacket.__name__)
    proxy = tracer.create_proxy("call_function", target, args, kwargs, name=name)
    proxy.node.meta["val"] = extract_val(value)
    items = [(value, proxy)] if isinstance(value, FakeTensor) else [(v, proxy[i]) for i, v in enumerate(value)]
    with maybe_enable_thunkify():  # sizes need no ops until they are used
        for item, its in items:
            its.node.meta["val"] = extract_val(item)
            track_tensor(item, its, constant=None, tracer=tracer)


def _answer(
    made: Sequence[fx.Node], value: Any, operands: Sequence[torch.Tensor], proxies: Sequence[fx.Proxy], tracer: Any
) -> _Answer | None:
    """What to remember of a call whose trace made the nodes ``made``; None where it cannot be replayed.

    It can be replayed where the first node is an op, and each further node takes one of its results.
    """
    kind = _result(value, operands)
    if kind is None or not made or not isinstance(made[0].target, OpOverload):
        return None
    several = not isinstance(value, FakeTensor)
    slots = [get_proxy_slot(v, tracer, None) for v in (value if several else [value])]
    if [slot and slot.proxy.node for slot in slots] != made[several:]:
        return None
    if any(n.target is not operator.getitem or n.args != (made[0], i) for i, n in enumerate(made[1:])):
        return None
    places = {proxy.node: i for i, proxy in enumerate(proxies)}
    if len(places) < len(operands) or not all(i in places for i in made[0].all_input_nodes):
        return None
    return _Answer(made[0], places, kind)


def _proxy(tensor: torch.Tensor, tracer: Any) -> fx.Proxy:
    slot = get_proxy_slot(tensor, tracer, None)
    if slot is None or slot.constant is not None:  # tracing computes with the constant
        raise _Unlike
    return slot.proxy


def _result(value: Any, operands: Sequence[torch.Tensor]) -> Any:
    """The kind of the result ``value``, and which ``operands`` share its memory; None if it does not hold tensors alone."""
    if type(value) in (tuple, list):
        several = [_result(v, operands) for v in value if isinstance(v, torch.Tensor)]
        return None if None in several or len(several) < len(value) else (type(value), several)
    if type(value) is not FakeTensor or value.layout is not torch.strided:
        return None
    if any(memo is not None for name, memo in vars(value).items() if name.endswith("_memo")):
        return None  # a number has been read from it, and is known by Dynamo's name
    memory = value.untyped_storage()._cdata
    return _tensor(value), [(o is value, o.untyped_storage()._cdata == memory) for o in operands]


def _kind(value: Any, operands: list[torch.Tensor]) -> Any:
    """The kind of an argument: everything that tracing can see of it. Its tensors are appended to ``operands``, each once.

    Raises:
        _Unlike: tracing may see more of it than this.
    """
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_kind(v, operands) for v in value)
    if isinstance(value, dict):
        return tuple((k, _kind(v, operands)) for k, v in value.items())
    if isinstance(value, slice):
        return slice, _kind((value.start, value.stop, value.step), operands)
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # tells 0.0 from -0.0, and nan is equal to itself
    if isinstance(value, _LITERALS):
        return type(value), value
    if not isinstance(value, FakeTensor) or value.layout is not torch.strided:
        raise _Unlike
    if not any(value is o for o in operands):
        operands.append(value)
    return next(i for i, o in enumerate(operands) if o is value), _tensor(value)


def _tensor(value: torch.Tensor) -> Any:
    flags = value.requires_grad, value.is_conj(), value.is_neg(), value.is_inference()
    return type(value), value.dtype, value.device, layout(value), flags
