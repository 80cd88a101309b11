"""A number of an index tensor whose length is a symbol, as text that holds of any length.

    at: i64[s0]           int(at[-1])               getitem(v, -1), where ``v`` is what ``at`` holds in a call
    lens: i64[s0]         lens += 1; lens.max()     (t0 := add_(v, 1), t1 := max(t0))[-1]

Where all sizes are known, the table knows each element (`table`). Here the ops that make the number are written out, and done
to the contents on each call, by the same rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from fxpass.graph.numbers import hint
from fxpass.graph.schemas import memory_of
from fxpass.torch_internals.fakes import FakeTensor

from . import mirror
from .arithmetic import NotCovered, as_array, elementwise, hold, in_place
from .functions import int32
from .operators import by_operator, may_write
from .rules import RULES
from .small_tensors import MAX_ELEMENTS, fixed
from .table import Table

_NAMES = by_operator({name: name for name in RULES})
_WRAPPED = in_place(elementwise(lambda entry, _: int32(entry)))
_FUNCTIONS = {**RULES, "int32": lambda a: _WRAPPED(a, 0), "torch": torch}
_ERRORS = (NotCovered, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError)
"""What a rule raises for operands that it does not cover."""
MAX_LENGTH = 1024
"""Characters; text that would be longer is not made."""


def number(text: str, shape: Sequence[int], values: Sequence[int]) -> int | bool | None:
    """The number that ``text`` makes of an index tensor of ``shape`` that holds ``values``; None where there is none."""
    try:
        made = as_array(_evaluated(text, shape, values))
    except _ERRORS:
        return None
    return made.reshape(-1)[0] if made.size == 1 else None


def _evaluated(text: str, shape: Sequence[int], values: Sequence[int]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return _function(text)(array.reshape(shape))


@functools.lru_cache(1024)
def _function(text: str) -> Callable[[np.ndarray], Any]:
    return eval(f"lambda v: {text}", dict(_FUNCTIONS))


def text_of(table: Table, node: fx.Node) -> tuple[fx.Node, str] | None:
    """The graph input that the one-element tensor ``node`` is computed from, which has a symbol for a size, and the text.

    None where it is computed from anything else too, or what it is computed from is written to, by an op without a rule.
    """
    placeholder = _input_of(node)
    if placeholder is None or not _has_any_length(placeholder) or table.inputs().is_written_elsewhere(placeholder):
        return None
    texts = _texts(placeholder)
    if texts is None or node not in texts or not _is_sound(placeholder, texts):
        return None
    text = _inlined(node, texts)
    return (placeholder, text) if len(text) <= MAX_LENGTH else None


def _input_of(node: fx.Node) -> fx.Node | None:
    """The only graph input among the tensors that ``node`` is computed from."""
    found, waiting = {node}, [node]
    while waiting:
        new = {n for n in waiting.pop().all_input_nodes if isinstance(_value(n), (torch.Tensor, tuple, list))} - found
        found |= new
        waiting += new
    inputs = [n for n in found if n.op == "placeholder"]
    return inputs[0] if len(inputs) == 1 else None


def _has_any_length(placeholder: fx.Node) -> bool:
    value = _value(placeholder)
    if type(value) not in (FakeTensor, torch.Tensor) or value.dtype not in (torch.int32, torch.int64) or value.dim() > 2:
        return False
    symbolic = any(isinstance(fixed(size), torch.SymInt) for size in value.shape)
    return symbolic and value.layout is torch.strided and 0 < (hint(value.numel()) or 0) <= MAX_ELEMENTS


def _texts(placeholder: fx.Node) -> dict[fx.Node, str] | None:
    """What is computed from ``placeholder`` so far, in order, as text over the names of what comes before; None where what it
    holds is not known any more."""
    memories, names = {memory_of(_value(placeholder))}, {placeholder: "v"}
    texts: dict[fx.Node, str] = {}
    for node in placeholder.graph.nodes:
        try:
            if not any(n in names for n in node.all_input_nodes):
                raise NotCovered
            texts[node] = _call(node, names)
            names[node] = f"t{len(texts) - 1}"
            memories.add(memory_of(_value(node)))
        except NotCovered:  # what it writes to may be a view, of which nothing is known but that it is one
            if any(w in names or memory_of(_value(w)) in memories - {None} for w in may_write(node)):
                return None
    return texts


def _call(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    value = _value(node)
    if node.target not in _NAMES:
        raise NotCovered
    operands = [_operand(a, names) for a in node.args]
    operands += [f"{key}={_operand(a, names)}" for key, a in node.kwargs.items()]
    text = f"{_NAMES[node.target]}({', '.join(operands)})"
    return f"int32({text})" if isinstance(value, torch.Tensor) and value.dtype is torch.int32 else text


def _operand(operand: Any, names: Mapping[fx.Node, str]) -> str:
    if isinstance(operand, (tuple, list)):
        inner = "".join(f"{_operand(part, names)}, " for part in operand)
        return f"({inner})" if isinstance(operand, tuple) else f"[{inner}]"
    if isinstance(operand, slice):
        return f"slice({', '.join(_operand(part, names) for part in (operand.start, operand.stop, operand.step))})"
    if isinstance(operand, fx.Node) and operand in names:
        return names[operand]
    if operand is None or type(operand) in (int, bool, torch.dtype, type(...)):
        return "..." if operand is ... else repr(operand)
    raise NotCovered


def _is_sound(placeholder: fx.Node, texts: Mapping[fx.Node, str]) -> bool:
    """Whether ``texts`` make, in this call, what the tensors hold: numbers or truths, in one memory where PyTorch shares it."""
    given, memory = placeholder.meta["grapharg"].example, memory_of(_value(placeholder))
    steps = ", ".join(f"t{i} := {text}" for i, text in enumerate(texts.values()))
    names = "".join(f"t{i}, " for i in range(len(texts)))
    try:
        base, *made = _evaluated(f"({steps}, (v, {names}))[-1]", given.shape, mirror.values(given))
    except _ERRORS:
        return False
    for node, array in zip(texts, made, strict=True):
        if isinstance(array, np.ndarray):
            shares = np.shares_memory(array, base)
            fake = _value(node)
            fits = array.shape == tuple(map(hint, fake.shape)) and hold(array.copy(), fake.dtype)
            if not fits or shares != (memory_of(fake) == memory):
                return False
    return True


def _inlined(node: fx.Node, texts: Mapping[fx.Node, str]) -> str:
    """``node`` as one expression; as steps, where some of them write."""
    writers = [n for n in texts if may_write(n)]
    needed = _ancestors([node, *writers], texts)
    names: dict[str, str] = {}
    steps: list[str] = []
    for i, (own, text) in enumerate(texts.items()):
        if own not in needed:
            continue
        names[f"t{i}"] = f"t{len(steps)}" if writers else _renamed(text, names)
        steps.append(f"{names[f't{i}']} := {_renamed(text, names)}")
        if len(steps[-1]) > MAX_LENGTH:
            return steps[-1]
    result = names[f"t{list(texts).index(node)}"]
    return f"({', '.join(steps)}, {result})[-1]" if writers else result


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\bt\d+\b", lambda match: names[match[0]], text)


def _ancestors(nodes: Sequence[fx.Node], texts: Mapping[fx.Node, str]) -> set[fx.Node]:
    found, waiting = set(nodes), list(nodes)
    while waiting:
        new = {n for n in waiting.pop().all_input_nodes if n in texts} - found
        found |= new
        waiting += new
    return found


def _value(node: fx.Node) -> Any:
    return node.meta.get("example_value")
