"""The inputs of a part: the fake tensors that it is compiled for, and what of its inputs a compiled part depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.memory_addresses import memory_address
from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.fakes import FakeTensorMode
from fxpass.torch_internals.symbols import DimDynamic, StatelessSymbolicContext, free_symbols


def symbol_places(fakes: Sequence[Any]) -> list[tuple[int, int]]:
    """For each symbol in the sizes of ``fakes``, an input and a dim of that size.

    Each symbol becomes an input of its own, as in Dynamo's graphs: Inductor (torch 2.15) may expect to read it there.
    """
    found = {s.node.expr: (i, d) for i, f in enumerate(fakes) if isinstance(f, torch.Tensor) for d, s in _symbolic(f)}
    return list(found.values())


def _symbolic(fake: torch.Tensor) -> Iterator[tuple[int, torch.SymInt]]:
    return ((d, s) for d, s in enumerate(fake.shape) if isinstance(s, torch.SymInt))


def dynamic_dims(node: fx.Node) -> tuple[int, ...] | None:
    """The dims of the input ``node`` whose sizes are symbolic; None if it is a number."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(d for d, s in enumerate(value.shape) if free_symbols(s))


def fake_of(mode: FakeTensorMode, name: str, value: Any, dims: tuple[int, ...] | None) -> Any:
    """The fake of ``value``: a tensor with symbolic sizes along ``dims``, a symbol for an int; anything else stays as it is."""
    env = mode.shape_env
    assert env is not None
    if isinstance(value, torch.Tensor):
        value = unviewed(value)
        if not value.dim() and value.is_floating_point():  # with symbolic shapes, its value would become a symbol
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
    """A tensor that lies where ``value`` does, and is no view.

    The base of a view may have another dtype, and sizes that no input of the part has.
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


def variant_key(example: Sequence[Any], varying: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function of arguments like ``example`` that tells what a static variant is compiled for: the numbers, sizes and strides
    that Dynamo has not guarded to be constants."""
    tensors = [i for i in varying if isinstance(example[i], torch.Tensor)]
    numbers = [f"args[{i}], " for i in varying if i not in tensors]
    sizes, strides = ([f"args[{i}].{of}(), " for i in tensors] for of in ("size", "stride"))
    return eval(f"lambda args: ({''.join([*numbers, *sizes, *strides])})")  # type: ignore[no-any-return]


def shares_memory(args: Sequence[Any]) -> bool:
    """Whether two of the tensors in ``args`` have one storage."""
    memories = [memory_address(a) for a in args if isinstance(a, torch.Tensor)]
    return len(set(memories)) < len(memories)
