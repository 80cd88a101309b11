"""Sizes that are symbols in the code of a static part: capacities of caches and of what grows, windows, and numbers of rows.

    keys: [2, 8, C, 64], values: [2, 8, C, 64], rows: [W]        two symbols, whatever C and W are now
    tokens: [2, n], last: m                                      two more: ``tokens[:, -last:]`` is [2, m]
    W <= C, C % 8 == 0                                           the compiler asks for this: it is checked for each C and W
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import guarded, symbols, to_expr
from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.dynamo.sizes.own_numbers import is_of_layout
from fxpass.torch_internals.fakes import FakeTensorMode
from fxpass.torch_internals.symbols import (
    SYMPY_INTERP,
    DimDynamic,
    PythonPrinter,
    StatelessSymbolicContext,
    free_symbols,
    symbols_for,
)

from .region_inputs import fake_of, unviewed

KEPT = 256
"""What is made of sizes is kept for so many of them."""


class Opened(NamedTuple):
    """The sizes among the inputs of a part that are symbols in its code.

    dims: for each input, the dims along which it has such a size.
    of_dims: the inputs that are numbers and equal to such a size, each with an input and a dim of that size.
    numbers: the inputs that are numbers and symbols by themselves.
    """

    dims: list[tuple[int, ...]]
    of_dims: dict[int, tuple[int, int]]
    numbers: list[int]

    def are_symbols(self, args: Sequence[Any]) -> bool:
        """Whether ``args`` have such sizes, all of them above 1: a compiler takes 0 and 1 for constants."""
        sizes = [args[i].shape[d] for i, dims in enumerate(self.dims) for d in dims]
        return bool(sizes) and min([*sizes, *(args[i] for i in self.numbers)]) > 1


def opened(inputs: Sequence[fx.Node], symbols: Set[Any]) -> Opened:
    """The sizes and numbers of ``inputs`` that stay symbols, which are those made of ``symbols``."""
    values = [node.meta.get("val") for node in inputs]
    shapes = [value.shape if isinstance(value, torch.Tensor) else () for value in values]
    dims = [tuple(d for d, size in enumerate(shape) if free_symbols(size) & symbols) for shape in shapes]
    sizes = {to_expr(shapes[i][d]): (i, d) for i, of in enumerate(dims) for d in of}
    numbers = {i: to_expr(value) for i, value in enumerate(values) if isinstance(value, torch.SymInt)}
    of_dims = {i: sizes[number] for i, number in numbers.items() if number in sizes}
    return Opened(dims, of_dims, [i for i, number in numbers.items() if number in symbols and i not in of_dims])


def fakes_of(
    mode: FakeTensorMode, inputs: Sequence[fx.Node], values: Sequence[Any], opened: Opened
) -> tuple[list[Any], dict[Any, torch.SymInt]]:
    """Fakes of ``values``, the arguments for ``inputs``, with symbols for sizes that are ``opened``; all other sizes are fixed.

    Two sizes have one symbol where ``inputs`` have one for both, and two symbols where they are only alike now. The second
    result gives the new symbol for each size of ``inputs``, which is an expression.
    """
    fakes: list[Any] = []
    known: dict[Any, torch.SymInt] = {}
    for i, (node, value, own) in enumerate(zip(inputs, values, opened.dims, strict=True)):
        of_dims = {d: to_expr(node.meta["val"].shape[d]) for d in own}
        symbols_for(mode.shape_env, {value.shape[d]: to_expr(known[size]) for d, size in of_dims.items() if size in known})
        fakes.append(_fake_of(mode, f"t{i}", value, own))
        for d, size in of_dims.items():
            guarded(known.setdefault(size, fakes[-1].shape[d]) == fakes[-1].shape[d])
    for i, (p, d) in opened.of_dims.items():
        fakes[i] = fakes[p].shape[d]
    for i in opened.numbers:
        fakes[i] = fake_of(mode, f"t{i}", values[i], None)
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
    """Whether ``condition`` has to be checked for the sizes of later calls. It need not be checked if it only asks how one of
    ``windows`` lies in memory, or whether a view lies within its memory.

    Each of ``windows`` is given with the sizes of its axes; ``sizes`` are the second result of `fakes_of`.

    Raises:
        ValueError: the condition is about the size of a memory that views share.
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
    """A function that takes a value for each of the symbols ``sizes``, and gives the values of ``numbers``, in tuples as these.

    It gives None where one of ``conditions`` does not hold, or a size is below 2, since compilers suppose that no symbol is.
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
