"""Sizes that are symbols in the code of a static part: capacities of caches and of what grows, and sizes of windows.

    keys: [2, 8, C, 64], values: [2, 8, C, 64], rows: [W]        two symbols, whatever C and W are now
    W <= C, C % 8 == 0                                           the compiler asks for this: it is checked for each C and W
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import symbols, to_expr
from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.dynamo.own_numbers import is_of_layout
from fxpass.torch_internals.fakes import FakeTensorMode
from fxpass.torch_internals.symbols import (
    SYMPY_INTERP,
    DimDynamic,
    PythonPrinter,
    StatelessSymbolicContext,
    free_symbols,
    symbols_for,
)

from .region_inputs import unviewed

KEPT = 256
"""What is made of sizes is kept for so many of them."""


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


def fakes_of(
    mode: FakeTensorMode, inputs: Sequence[fx.Node], values: Sequence[Any], dims: Sequence[tuple[int, ...]]
) -> tuple[list[Any], dict[Any, torch.SymInt]]:
    """Fakes of ``values``, the arguments for ``inputs``, with symbols for sizes along ``dims``; all other sizes are fixed.

    Sizes have one symbol where those of the inputs have, and two where they are only alike now. The second result gives these
    sizes by those of the inputs, as expressions.
    """
    fakes: list[Any] = []
    known: dict[Any, torch.SymInt] = {}
    for i, (node, value, own) in enumerate(zip(inputs, values, dims, strict=True)):
        of_dims = {d: to_expr(node.meta["val"].shape[d]) for d in own}
        symbols_for(mode.shape_env, {value.shape[d]: to_expr(known[size]) for d, size in of_dims.items() if size in known})
        fakes.append(_fake_of(mode, f"t{i}", value, own))
        for d, size in of_dims.items():
            assert known.setdefault(size, fakes[-1].shape[d]) == fakes[-1].shape[d]
    return fakes, known


def _fake_of(mode: FakeTensorMode, name: str, value: Any, dims: tuple[int, ...]) -> Any:
    """The fake of ``value``, of which sizes along ``dims`` are symbols. Strides are fixed, or made of these."""
    if not isinstance(value, torch.Tensor):
        return value
    sizes = [DimDynamic.DUCK if d in dims else DimDynamic.STATIC for d in range(value.dim())]
    context = StatelessSymbolicContext(dynamic_sizes=sizes)
    fake = mode.from_tensor(unviewed(value), symbolic_context=context, source=ConstantSource(name))
    for stride in fake.stride():
        if free_symbols(stride) - free_symbols(fake.shape):
            int(stride)  # a symbol that no size has becomes a number
    return fake


def is_asked(condition: Any, sizes: Mapping[Any, torch.SymInt], windows: Mapping[Any, Sequence[Any]]) -> bool:
    """Whether ``condition`` has to be checked for sizes that come. It has not if it only asks for the layout of one of
    ``windows``, each given with the sizes of its axes, or whether a view lies within its memory. ``sizes`` are those of
    `fakes_of`.

    Raises:
        ValueError: it is about the size of a memory that views share.
    """
    if condition.free_symbols - {s for size in sizes.values() for s in symbols(size)}:
        if isinstance(condition, (sympy.Le, sympy.Ge)):
            return False
        raise ValueError(f"{condition} is asked about memory that views share")
    return not any(
        is_of_layout(condition, to_expr(sizes[window]), to_expr(sizes.get(size, size)))
        for window, axes in windows.items()
        for size in axes
        if window in sizes
    )


def function_of_sizes(sizes: Sequence[Any], conditions: Sequence[Any], numbers: Any) -> Callable[..., Any]:
    """A function of what the symbols ``sizes`` stand for that gives what ``numbers``, in tuples, are then.

    It gives None where not all ``conditions`` hold, or a size is below 2: compilers suppose that no symbol is.
    """
    names = {symbol: sympy.Symbol(f"c{i}", integer=True) for i, symbol in enumerate(sizes)}

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return f"({''.join(f'{text(one)}, ' for one in value)})"
        return PythonPrinter().doprint(to_expr(value).xreplace(names)) if isinstance(value, torch.SymInt) else repr(value)

    asked = [f"({PythonPrinter().doprint(condition.xreplace(names))})" for condition in conditions]
    holds = " and ".join([*(f"{name} > 1" for name in names.values()), *asked])
    given = ", ".join(map(str, names.values()))
    return functools.lru_cache(KEPT)(eval(f"lambda {given}: {text(numbers)} if {holds} else None", dict(SYMPY_INTERP)))
