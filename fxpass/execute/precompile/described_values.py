"""Fake values as plain data, and fake values made of it in another process.

    k: f32[2, s0, 8]        sizes, strides and offset over the symbol s0; which memory, and how large        k: f32[2, u0, 8]

Tensors that shared memory share it again. Symbols become those of another environment, with the same values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

from fxpass.graph.normal_form import faking
from fxpass.graph.numbers import to_expr
from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.fakes import FakeTensor, FakeTensorMode
from fxpass.torch_internals.precompile.names import no_dispatch
from fxpass.torch_internals.symbols import DimDynamic, SymNode


class NotSerializable(Exception):
    """The graph cannot be described for another process; the message says why."""


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A fake tensor: sizes, strides and offset are ints or expressions; ``memory`` tells which tensors share theirs."""

    shape: tuple[Any, ...]
    stride: tuple[Any, ...]
    offset: Any
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    memory: int
    nbytes: Any


@dataclasses.dataclass(frozen=True)
class _Symbolic:
    """A SymInt: its expression."""

    expr: Any


def describe(name: str, value: Any, memories: dict[int, int]) -> Any:
    """``value``, of the node called ``name``, as plain data. ``memories`` numbers the storages that have been met.

    Raises:
        NotSerializable: it is no number, and no plain tensor.
    """
    if isinstance(value, torch.SymInt):
        return _Symbolic(value.node.expr)
    if isinstance(value, (tuple, list)):
        return type(value)(describe(name, v, memories) for v in value)
    if not isinstance(value, torch.Tensor):
        if value is None or type(value) in (int, float, bool, str):
            return value
        raise NotSerializable(f"{name} is a {type(value).__name__}")
    if value.layout is not torch.strided or not isinstance(value, FakeTensor):
        raise NotSerializable(f"{name} is no plain tensor")
    storage = value.untyped_storage()
    return _Tensor(
        tuple(map(to_expr, value.shape)),
        tuple(map(to_expr, value.stride())),
        to_expr(value.storage_offset()),
        value.dtype,
        value.device,
        value.requires_grad,
        memories.setdefault(storage._cdata, len(memories)),
        to_expr(storage.nbytes()),
    )


def symbol_values(gm: fx.GraphModule) -> dict[Any, int]:
    """The values that the symbols of ``gm``'s inputs had."""
    values = [n.meta["val"] for n in gm.graph.find_nodes(op="placeholder")]
    numbers = [v for v in values if isinstance(v, torch.SymInt)]
    for v in values:
        if isinstance(v, torch.Tensor):
            numbers += [s for s in (*v.shape, *v.stride()) if isinstance(s, torch.SymInt)]
    hints: dict[Any, int] = {}
    for number in numbers:
        for symbol in sorted(number.node.expr.free_symbols - hints.keys(), key=str):
            hint = SymNode(symbol, number.node.shape_env, int, None).hint
            if hint is None:
                raise NotSerializable(f"{symbol} is known on the device only")
            hints[symbol] = int(hint)
    return hints


class Loader:
    """Makes fake values in ``mode`` of what `describe` says of them, over symbols of ``mode``'s own."""

    def __init__(self, mode: FakeTensorMode, hints: dict[Any, int]) -> None:
        assert mode.shape_env is not None
        self.mode, self.env, self.hints = mode, mode.shape_env, hints
        self.renamed = {symbol: self._symbol(symbol, hint) for symbol, hint in hints.items()}
        self._memories: dict[int, torch.UntypedStorage] = {}

    def value(self, spec: Any) -> Any:
        """The fake value that `describe` has described as ``spec``."""
        if isinstance(spec, (tuple, list)):
            return type(spec)(map(self.value, spec))
        if isinstance(spec, _Symbolic):
            return self._number(spec.expr)
        if not isinstance(spec, _Tensor):
            return spec
        size = [self._number(s) for s in (*spec.shape, *spec.stride, spec.offset, spec.nbytes)]
        if all(isinstance(s, int) for s in size):
            with no_dispatch():
                value: torch.Tensor = FakeTensor(self.mode, self._tensor(spec, "meta", *size), spec.device)
        else:
            with faking(self.mode):
                value = self._tensor(spec, spec.device, *size)
        return value.requires_grad_(spec.requires_grad)

    def _tensor(self, spec: _Tensor, device: Any, *size: Any) -> torch.Tensor:
        *numbers, offset, nbytes = size
        if spec.memory not in self._memories:
            self._memories[spec.memory] = torch.empty(nbytes, dtype=torch.uint8, device=device).untyped_storage()
        shape, stride = numbers[: len(spec.shape)], numbers[len(spec.shape) :]
        return torch.empty(0, dtype=spec.dtype, device=device).set_(self._memories[spec.memory], offset, shape, stride)

    def _number(self, expr: Any) -> Any:
        if not getattr(expr, "free_symbols", None):
            return int(expr)
        return self.env.create_symintnode(expr.xreplace(self.renamed), hint=int(expr.xreplace(self.hints)))

    def _symbol(self, symbol: Any, hint: int) -> Any:
        return self.env.create_unspecified_symbol(hint, ConstantSource(str(symbol)), dynamic_dim=DimDynamic.DYNAMIC)
