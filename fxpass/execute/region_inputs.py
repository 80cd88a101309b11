"""The inputs of a part: as fake tensors to compile it for, and what of them a compiled part depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.fakes import FakeTensorMode
from fxpass.torch_internals.symbols import DimDynamic, StatelessSymbolicContext, free_symbols


def symbol_places(fakes: Sequence[Any]) -> list[tuple[int, int]]:
    """Which input has which size, for each symbol in the inputs' sizes once.

    A graph of Dynamo's has each of its symbols as an input, too; Inductor (torch 2.15) need not read one anywhere else.
    """
    found = {s.node.expr: (i, d) for i, f in enumerate(fakes) if isinstance(f, torch.Tensor) for d, s in _symbolic(f)}
    return list(found.values())


def _symbolic(fake: torch.Tensor) -> Iterator[tuple[int, torch.SymInt]]:
    return ((d, s) for d, s in enumerate(fake.shape) if isinstance(s, torch.SymInt))


def dynamic_dims(node: fx.Node) -> tuple[int, ...] | None:
    """Which sizes of the input ``node`` are symbolic; None for a number."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(d for d, s in enumerate(value.shape) if free_symbols(s))


def dims_of(node: fx.Node, capacities: Set[Any]) -> tuple[int, ...]:
    """Which sizes of the input ``node`` are capacities of what grows."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, torch.Tensor) else ()
    return tuple(d for d, size in enumerate(sizes) if free_symbols(size) & capacities)


def fake_of_capacity(mode: FakeTensorMode, name: str, value: Any, dims: tuple[int, ...]) -> Any:
    """``value``, a tensor whose sizes along ``dims`` are one symbol, and fixed along all others."""
    if not isinstance(value, torch.Tensor):
        return value
    sizes = [DimDynamic.DUCK if d in dims else DimDynamic.STATIC for d in range(value.dim())]
    context = StatelessSymbolicContext(dynamic_sizes=sizes)
    return mode.from_tensor(unviewed(value), symbolic_context=context, source=ConstantSource(name))


def fake_of(mode: FakeTensorMode, name: str, value: Any, dims: tuple[int, ...] | None) -> Any:
    env = mode.shape_env
    assert env is not None
    if isinstance(value, torch.Tensor):
        value = unviewed(value)
        if not value.dim() and value.is_floating_point():  # with symbols, what it holds would become one
            return mode.from_tensor(value, static_shapes=True)
        sizes = [DimDynamic.DYNAMIC if d in (dims or ()) else DimDynamic.STATIC for d in range(value.dim())]
        context = StatelessSymbolicContext(dynamic_sizes=sizes)
        return mode.from_tensor(value, symbolic_context=context, source=ConstantSource(name))
    if isinstance(value, int) and not isinstance(value, bool):
        source = ConstantSource(name)
        symbol = env.create_unspecified_symbol(value, source=source, dynamic_dim=DimDynamic.DYNAMIC)
        return env.create_symintnode(symbol, hint=value, source=source)
    return value


def unviewed(value: torch.Tensor) -> torch.Tensor:
    """``value``, in the memory that it lies in, and a view of nothing.

    What it is a view of may have another dtype, and sizes that are no input's; a part knows its inputs alone.
    """
    if value._base is None or type(value) is not torch.Tensor or value.layout is not torch.strided:
        return value
    if value.is_conj() or value.is_neg():
        return value
    own = torch.empty(0, dtype=value.dtype, device=value.device)
    return own.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())  # type: ignore


def varies(node: fx.Node) -> bool:
    """Whether the input ``node`` has a symbolic size or stride, or is a number."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return bool(free_symbols([*value.shape, *value.stride()]))
    return isinstance(value, torch.SymInt)


def layouts(args: Sequence[Any], varying: Sequence[int], as_int: Callable[[Any], int] | None = None) -> list[Any]:
    """What a static variant depends on: the numbers, sizes and strides that Dynamo left symbolic (it guards on the others)."""
    now = [args[i] for i in varying]
    if as_int is not None:
        return [a if isinstance(a, int) else (tuple(map(as_int, a.shape)), tuple(map(as_int, a.stride()))) for a in now]
    return [a if isinstance(a, int) else (a.shape, a.stride()) for a in now]


def shares_memory(args: Sequence[Any]) -> bool:
    memories = [a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)]
    return len(set(memories)) < len(memories)
