"""Numbers that are computed from a call's arguments, outside of the graph, as plain data.

    8 * (x.size(2) // 8)        Formula(mul, (8, Formula(floordiv, (Size(0, 2), 8))))

Each call needs all of them, so `function_of` makes one function, in which what several of them share is computed once:

    lambda given: ((v3 := given[0].size(2)), (v2 := fv2(v3, v1)), (v0 := fv0(v1, v2)), (v0,),)[-1]
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.arithmetic import SUM, call_of
from fxpass.graph.numbers import Derived, number, to_expr

aten = torch.ops.aten

MOST = 256
"""A formula has no more terms than this. A number that others are made of is written out at each use."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of the graph's input ``place`` along ``dim``; the input itself, a number, where that is None."""

    place: int
    dim: int | None = None


@dataclasses.dataclass(frozen=True)
class Formula:
    """The number ``fn(*args)`` of numbers, formulas and sizes."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]


def function_of(*numbers: Any) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function of a call's inputs that gives what each of ``numbers`` is for these: sizes, formulas, and tuples of them."""
    names: dict[str, str] = {}
    known: dict[str, Any] = {}
    steps: list[str] = []

    def text(number: Any) -> str:
        if isinstance(number, tuple):
            return f"({''.join(f'{text(one)}, ' for one in number)})"
        if (key := repr(number)) in names:
            return names[key]
        name = names[key] = f"v{len(names)}"
        if isinstance(number, Size):
            steps.append(f"({name} := given[{number.place}]{'' if number.dim is None else f'.size({number.dim})'}), ")
        elif isinstance(number, Formula):
            known[f"f{name}"] = number.fn
            steps.append(f"({name} := f{name}({', '.join(map(text, number.args))})), ")
        else:
            known[name] = number
        return name

    result = text(numbers)
    return eval(f"lambda given: ({''.join(steps)}{result},)[-1]", known)  # type: ignore[no-any-return]


def formula(value: Any, given: Sequence[fx.Node], resolve: Callable[[Any], Any] = lambda value: value) -> Any:
    """The number ``value``, a node or what `Derived` says, in terms of the inputs ``given``; an int stays an int.
    ``resolve`` gives what a number is known to equal.

    Raises:
        ValueError: it depends on something else, such as a capacity, or is made of more than `MOST` terms.
    """
    terms = itertools.count()

    def of(value: Any) -> Any:
        if next(terms) == MOST:
            raise ValueError(f"{value} is made of more than {MOST} terms")
        value = resolve(value)
        if value in given:
            return Size(given.index(value))
        if not isinstance(value, (fx.Node, Derived)):
            return value
        fn, args = call_of(value)
        if fn is aten.sym_size.int:
            return Size(given.index(args[0]), args[1]) if args[0] in given else _size_of(number(value), given)
        if fn is SUM:
            fn, args = _total, tuple(args[0])
        if not callable(fn):
            raise ValueError(f"{value} is computed by no function")
        return Formula(fn, tuple(map(of, args)))

    return of(value)


def _size_of(size: Any, given: Sequence[fx.Node]) -> Size:
    """The size of an input that is always the same as ``size``, one of a tensor that the graph computes."""
    for place, node in enumerate(given):
        shape = node.meta["val"].shape if isinstance(node.meta["val"], torch.Tensor) else ()
        for dim, own in enumerate(shape):
            if to_expr(own) == to_expr(size):
                return Size(place, dim)
    raise ValueError(f"{size} is the size of no input")


def _total(*terms: int) -> int:
    return sum(terms)
