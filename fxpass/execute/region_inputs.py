"""The inputs of a part: the fake tensors that it is compiled for, and what of its inputs a compiled part depends on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import to_expr
from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.fakes import FakeTensorMode
from fxpass.torch_internals.symbols import SYMPY_INTERP, DimDynamic, PythonPrinter, StatelessSymbolicContext, free_symbols

KEPT = 256
"""For so many sizes, what is made of them is kept."""


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


def dims_of(node: fx.Node, capacities: Set[Any]) -> tuple[int, ...]:
    """The dims of the input ``node`` whose sizes are ``capacities`` of buffers that grow."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, torch.Tensor) else ()
    return tuple(d for d, size in enumerate(sizes) if free_symbols(size) & capacities)


def numbers_of(inputs: Sequence[fx.Node], dims: Sequence[tuple[int, ...]]) -> dict[int, tuple[int, int]]:
    """Which of ``inputs`` are numbers that are sizes of others along ``dims``: each with such an input, and the dim."""
    sizes = {to_expr(inputs[i].meta["val"].shape[d]): (i, d) for i, of in enumerate(dims) for d in of}
    numbers = [(i, n.meta.get("val")) for i, n in enumerate(inputs)]
    return {i: sizes[to_expr(v)] for i, v in numbers if isinstance(v, torch.SymInt) and to_expr(v) in sizes}


def fake_of_capacity(mode: FakeTensorMode, name: str, value: Any, dims: tuple[int, ...]) -> Any:
    """The fake of ``value`` with symbols for its sizes along ``dims``, and fixed sizes along all others. Strides are fixed, or
    made of these."""
    if not isinstance(value, torch.Tensor):
        return value
    sizes = [DimDynamic.DUCK if d in dims else DimDynamic.STATIC for d in range(value.dim())]
    context = StatelessSymbolicContext(dynamic_sizes=sizes)
    fake = mode.from_tensor(unviewed(value), symbolic_context=context, source=ConstantSource(name))
    for stride in fake.stride():
        if free_symbols(stride) - free_symbols(fake.shape):
            int(stride)  # a symbol that no size has becomes a number
    return fake


def join_sizes(
    inputs: Sequence[fx.Node], fakes: Sequence[Any], dims: Sequence[tuple[int, ...]], windows: Set[Any]
) -> set[Any]:
    """Let sizes of ``fakes`` along ``dims`` have one symbol where those of ``inputs`` have. Gives the symbols that they have in
    the place of ``windows``."""
    first: dict[Any, Any] = {}
    for node, fake, own in zip(inputs, fakes, dims, strict=True):
        for d in own:
            size = first.setdefault(to_expr(node.meta["val"].shape[d]), fake.shape[d])
            assert size == fake.shape[d]  # which the environment knows from here on
    return {to_expr(first[window]) for window in windows & first.keys()}


def is_of_layout(condition: Any, windows: Set[Any]) -> bool:
    """Whether ``condition`` says only that one of ``windows`` is not the whole axis that it is of.

    That is asked to tell whether the view is contiguous. Code for views that are not reads them by their strides, so it is
    right for one that is.
    """
    if not isinstance(condition, sympy.Ne):
        return False
    found = condition.free_symbols & windows
    return len(condition.free_symbols) == 2 and len(found) == 1 and condition.xreplace(
        dict.fromkeys(found, *(condition.free_symbols - found))
    ) == sympy.false  # fmt: skip


def function_of_sizes(symbols: Sequence[Any], conditions: Sequence[Any], numbers: Any) -> Callable[..., Any]:
    """A function of what ``symbols`` stand for that gives what ``numbers``, in tuples, are then; None where not all ``conditions`` hold,
    or a size is below 2, which compilers suppose that no symbol is."""
    names = {symbol: sympy.Symbol(f"c{i}", integer=True) for i, symbol in enumerate(symbols)}

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return f"({''.join(f'{text(one)}, ' for one in value)})"
        return PythonPrinter().doprint(to_expr(value).xreplace(names)) if isinstance(value, torch.SymInt) else repr(value)

    asked = [f"({PythonPrinter().doprint(condition.xreplace(names))})" for condition in conditions]
    holds = " and ".join([*(f"{name} > 1" for name in names.values()), *asked])
    given = ", ".join(map(str, names.values()))
    return functools.lru_cache(KEPT)(eval(f"lambda {given}: {text(numbers)} if {holds} else None", dict(SYMPY_INTERP)))


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


def layouts(example: Sequence[Any], varying: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function of arguments like ``example`` that tells what a static variant is compiled for: the numbers, sizes and strides
    that Dynamo has not guarded to be constants."""
    tensors = [i for i in varying if isinstance(example[i], torch.Tensor)]
    numbers = [f"args[{i}], " for i in varying if i not in tensors]
    sizes, strides = ([f"args[{i}].{of}(), " for i in tensors] for of in ("size", "stride"))
    return eval(f"lambda args: ({''.join([*numbers, *sizes, *strides])})")  # type: ignore[no-any-return]


def shares_memory(args: Sequence[Any]) -> bool:
    """Whether two of the tensors in ``args`` have one storage."""
    memories = [a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)]
    return len(set(memories)) < len(memories)
