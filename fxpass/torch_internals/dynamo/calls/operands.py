"""Where a tensor among the operands of an operator stands for a number, the number that it holds takes its place.

    c.split([e, 8 - e], 1)                c.split([s1, 8 - s1], 1)
    x.triu(diagonal=start_tensor)         x.triu(diagonal=s0)
    torch.add(x, y, alpha=start_tensor)   torch.add(x, y, alpha=s0)

PyTorch reads such a tensor, which breaks the graph in stock. Where an operand may be a tensor as well, it stays one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch

from fxpass.index_tensors.operators import belongs_to_a_library
from fxpass.torch_internals.operators import OpOverloadPacket

from .indexing import NumberReader, number_or_same, rank

Operands = tuple[tuple[Any, ...], dict[str, Any]]


def with_numbers(target: Any, operands: tuple[Any, ...], named: dict[str, Any], number_in: NumberReader) -> Operands:
    """The operands of a function or method of PyTorch, with numbers in the place of tensors that stand for one."""
    if not isinstance(target, str) and not (callable(target) and belongs_to_a_library(target)):
        return operands, named
    takes = _taken(target if isinstance(target, str) else getattr(target, "__name__", ""))
    placed = (_number(o, takes.at(i), number_in) for i, o in enumerate(operands))
    return tuple(placed), {name: _number(o, takes.named.get(name, ""), number_in) for name, o in named.items()}


def _number(operand: Any, kind: str, number_in: NumberReader) -> Any:
    if kind and isinstance(operand, (tuple, list)):
        return type(operand)(number_or_same(o, number_in) for o in operand)
    return number_or_same(operand, number_in) if kind == "int" or kind == "scalar" and rank(operand) == 0 else operand


@dataclasses.dataclass(frozen=True)
class Takes:
    """What each operand of an operator stands for: "int" (or a list of ints), "scalar" (which a tensor with dims is not),
    "ints" (a list alone), or else "".

    Operands beyond the last one belong to it, as in ``x.expand(2, e)``.
    """

    placed: tuple[str, ...] = ()
    named: dict[str, str] = dataclasses.field(default_factory=dict)

    def at(self, place: int) -> str:
        return self.placed[min(place, len(self.placed) - 1)] if self.placed else ""


@functools.cache
def _taken(name: str) -> Takes:
    """What the operands of the aten operator ``name`` are by the schemas of all its overloads."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):
        return Takes()  # no operator: the namespace's own `__eq__`
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    schemas = [schema.arguments for schema in schemas if ".names" not in str(schema)]
    in_order = [[a for a in arguments if not a.kwarg_only] for arguments in schemas]
    most = max(map(len, in_order), default=0)
    placed = [[arguments[i] for arguments in in_order if i < len(arguments)] for i in range(most)]
    named = {a.name for arguments in schemas for a in arguments}
    return Takes(
        tuple(_kind(name, arguments) for arguments in placed),
        {n: _kind(name, [a for arguments in schemas for a in arguments if a.name == n]) for n in named},
    )


def _kind(operator: str, arguments: list[Any]) -> str:
    """What an operand is that has one of ``arguments`` in each overload of ``operator``."""
    kinds = {str(a.type).removeprefix("Optional[").rstrip("]") for a in arguments}
    if kinds == {"number"}:
        return "scalar"
    if not kinds & _INTS:
        return ""
    if kinds <= _INTS | _NO_TENSORS or any(a.name in _SAME.get(operator, ()) for a in arguments):
        return "int"
    return "" if "List[Tensor" in kinds else "ints"


_INTS = {"int", "SymInt", "List[int", "List[SymInt"}
_NO_TENSORS = {"number", "str", "List[str"}
_SAME = {"narrow": ("start",), "repeat_interleave": ("repeats",)}
"""Operands that one overload takes as a 0-d tensor, and another one as a number of the same meaning."""
