"""What one op becomes is traced once.

A model of twelve layers asks twelve times what ``x.transpose(1, 2)`` is in aten, for tensors of the same kind. The first
answer is written down again where the value is known, from the graph's own tracing, and is of the same kind too:

    a = x.transpose(1, 2)      traced:    a = aten.transpose.int(x, 1, 2)
    b = y.transpose(1, 2)      as above:  b = aten.transpose.int(y, 1, 2),    the value of b is Dynamo's

Always traced are ops that take symbolic numbers, that become several, or that give other than tensors, and functions that are
not torch's own: they may ask anything.
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
    """The one op that another became: its node, which of its operands are which of the call's, and what its value is."""

    node: fx.Node
    operands: dict[fx.Node, int]
    kind: Any


class Replaying(fx.Interpreter):
    """An interpreter, to be traced with `make_fx`, that asks about ops of the same kind once."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self._answers: dict[Any, _Answer | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The value of ``n``, with what it becomes in the graph that is being traced."""
        mode = get_proxy_mode()
        if mode is None or not _of_torch(n):
            return super().run_node(n)
        tracer = mode.tracer
        operands: list[torch.Tensor] = []
        with self._set_current_node(n), DisableTorchFunction():  # whoever looks is not traced
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
    """Whether ``node`` calls a function or method of torch's, which asks about its arguments what `_kind` tells."""
    if node.op != "call_function":
        return node.op == "call_method"
    if isinstance(node.target, (types.BuiltinFunctionType, OpOverload)):
        return True
    return str(getattr(node.target, "__module__", "")).startswith("torch.nn.functional")


class _Unlike(Exception):
    """Something that need not be like anything else."""


def _again(answer: _Answer, proxies: Sequence[fx.Proxy], value: Any, tracer: Any) -> None:
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
    """What the nodes ``made``, with the value ``value``, say: one op, and one more node for each tensor that it gives if it
    gives several."""
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
    if slot is None or slot.constant is not None:  # what is computed from it is a constant too
        raise _Unlike
    return slot.proxy


def _result(value: Any, operands: Sequence[torch.Tensor]) -> Any:
    """What the result ``value`` of ``operands`` is, and whose memory; None for what is no tensor, nor several."""
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
    """All that tracing can ask about an argument. Its tensors are appended to ``operands``, each once.

    Raises:
        _Unlike: it is not known what can be asked.
    """
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_kind(v, operands) for v in value)
    if isinstance(value, dict):
        return tuple((k, _kind(v, operands)) for k, v in value.items())
    if isinstance(value, slice):
        return slice, _kind((value.start, value.stop, value.step), operands)
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # two zeros, one nan
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
