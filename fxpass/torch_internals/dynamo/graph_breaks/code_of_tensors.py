"""Whether code that Dynamo leaves to Python works on tensors there, as far as the code itself tells.

    k[:, :p]                 a slice with a bound that is no constant
    k.narrow(1, 0, p)        an attribute or a global with the name of an operator of PyTorch
    k @ w                    a product of matrices
    (k[:, :e] for e in ..)   the body of a generator, a coroutine or a class: Dynamo compiles none of these for itself

A function that only calls others (`return fn(*args)`) does none of this. The functions that it calls are compiled by
themselves.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
from collections.abc import Iterator
from types import CodeType

import torch

_SLICES = {"BUILD_SLICE", "BINARY_SLICE", "STORE_SLICE"}
_NAMED = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL", "LOAD_NAME"}
_PRODUCTS = {"BINARY_MATRIX_MULTIPLY", "INPLACE_MATRIX_MULTIPLY"}
"""Up to Python 3.10."""
_PAUSES = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def works_on_tensors(code: CodeType) -> bool:
    """Whether ``code``, or a body in it that is never compiled for itself, takes slices or names an operator."""
    return takes_slices(code) or any(map(_names_an_operator, _bodies(code)))


def takes_slices(code: CodeType) -> bool:
    """Whether ``code``, or such a body in it, takes slices with a bound that is no constant."""
    return any(map(_slices, _bodies(code)))


def _bodies(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and (inner.co_flags & _PAUSES or not inner.co_flags & inspect.CO_OPTIMIZED):
            yield from _bodies(inner)


def _slices(code: CodeType) -> bool:
    made = list(dis.get_instructions(code))
    slices = (i for i, one in enumerate(made) if one.opname in _SLICES)
    narrows = any(one.opname in _NAMED and one.argval == torch.narrow.__name__ for one in made)
    return narrows or any("LOAD_CONST" != bound.opname for i in slices for bound in made[max(i - 2, 0) : i])


def _names_an_operator(code: CodeType) -> bool:
    return any(_is_operator(one) for one in dis.get_instructions(code))


def _is_operator(one: dis.Instruction) -> bool:
    is_product = one.opname == "BINARY_OP" and one.argrepr.startswith("@") or one.opname in _PRODUCTS
    return is_product or one.opname in _NAMED and one.argval in _operators()


@functools.cache
def _operators() -> frozenset[str]:
    """The names of PyTorch's functions and methods that give tensors, but for those that Python's types and functions have."""
    named = (fn.__name__ for of in torch.overrides.get_overridable_functions().values() for fn in of if hasattr(fn, "__name__"))
    pythons = {name for one in (builtins, str, list, dict, set, bytes) for name in dir(one)}
    return frozenset(name for name in named if not name.startswith("_")) - pythons - _OF_NUMBERS


_OF_NUMBERS = {"size", "dim", "numel", "item", "stride", "tolist", "get_device", "is_contiguous", "element_size", "nelement"}
