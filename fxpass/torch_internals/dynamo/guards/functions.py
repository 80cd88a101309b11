"""Functions of ours that run from guards and from Dynamo's bytecode, where an error would reach the user.

    a guard of a compiled call      does not hold, which is what torch makes of an error in a guard
    while a frame is compiled       the frame is compiled once more without our hooks, as stock does (`graph_breaks.retries`)
    in bytecode                     the number is read from the tensor itself

One warning tells of the fault, with its traceback. Each function handles its own errors, since a wrapper around all of them
would add a call of each to every step. `install` keeps Dynamo from tracing what runs here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import CodeType
from typing import Any

import torch

from fxpass.index_tensors import address_ranges, expressions, formula, mirror
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import skip_code
from fxpass.torch_internals.lookup_order import meet, threads
from fxpass.torch_internals.patches import tell


@torch.compiler.disable
def tell_once(look: Callable[..., Any], error: Exception) -> None:
    """Tell of an ``error`` of ``look``, but not of those that follow from it while a frame is compiled."""
    compilation = current_compilation()
    if compilation is None or not compilation.guard_failed:
        tell(look, error)
    if compilation is not None:
        compilation.guard_failed = True


def values(tensor: Any) -> tuple[int, ...]:
    """All elements of ``tensor``, as `mirror.values` gives them. In a call, this or `read` runs first."""
    try:
        if get_ident() not in threads:
            meet()
        return mirror.values(tensor)
    except Exception as error:
        tell_once(values, error)
        raise


def evaluate(text: str, held: Sequence[int]) -> Any:
    """What `formula.evaluate` makes of the elements ``held``."""
    try:
        return formula.evaluate(text, held)
    except Exception as error:
        tell_once(evaluate, error)
        raise


def of_one(text: str, value: Any) -> Any:
    """What `expressions.computed_number` makes of ``value``."""
    try:
        if get_ident() not in threads:
            meet()
        return expressions.computed_number(text, [value])
    except Exception as error:
        tell_once(of_one, error)
        raise


def of_several(text: str, where: CodeType, global_names: dict[str, Any], local_names: dict[str, Any]) -> Any:
    """What `expressions.computed_number` makes of the values that ``where`` finds by their names."""
    try:
        if get_ident() not in threads:
            meet()
        return expressions.computed_number(text, found(where, global_names, local_names))
    except Exception as error:
        tell_once(of_several, error)
        raise


def found(where: CodeType | str, global_names: Mapping[str, Any], local_names: Mapping[str, Any]) -> Any:
    """What ``where`` finds, which names sources as Dynamo's guards do, in the globals and the locals of a frame."""
    return eval(where, {"L": local_names, "G": global_names, "__load_module": importlib.import_module})


def agree(tensor: Any, index: int, other: int) -> bool:
    """Whether two elements of ``tensor`` are the same number."""
    return all_agree(values(tensor), [(index, other)])


def all_agree(held: Sequence[int], pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether the two elements of each of ``pairs``, of the elements ``held``, are the same number."""
    try:
        return mirror.all_agree(held, pairs)
    except Exception as error:
        tell_once(all_agree, error)
        raise


def disjoint(tensors: Sequence[tuple[torch.Tensor, bool, bool]]) -> bool:
    """Whether what a graph writes lies apart from what it knows, as `address_ranges.disjoint` says."""
    try:
        return address_ranges.disjoint(tensors)
    except Exception as error:
        tell_once(disjoint, error)
        raise


def read(tensor: Any, index: int) -> int:
    """Element ``index`` (row-major) of ``tensor``."""
    try:
        if get_ident() not in threads:
            meet()
        return mirror.read(tensor, index)
    except Exception as error:
        tell_once(read, error)
    return int(tensor.flatten()[index].item())


def computed(tensor: Any, text: str) -> Any:
    """What the `formula_text` ``text`` makes of the elements of ``tensor``."""
    try:
        return mirror.computed(tensor, text)
    except Exception as error:
        tell_once(computed, error)
    return formula.evaluate(text, tensor.flatten().tolist())


@torch.compiler.disable
def computed_by(text: str, *inputs: Any) -> Any:
    """What `expressions.computed_number` makes of ``inputs``."""
    try:
        return expressions.computed_number(text, inputs)
    except Exception as error:
        tell_once(computed_by, error)
        raise


def item(text: str, container: Any, *numbers: int) -> Any:
    """The item of ``container`` at the place that ``text`` makes of ``numbers``, which are called ``n`` there."""
    return container[numbers[0] if text == "n[0]" else eval(text, {"n": numbers})]


def length(container: Any) -> int:
    """The length of ``container``."""
    return len(container)


def install() -> None:
    """Keep Dynamo from tracing these functions, and those of the mirror that they call."""
    for function in (
        values,
        evaluate,
        of_one,
        of_several,
        found,
        agree,
        all_agree,
        disjoint,
        read,
        computed,
        item,
        length,
        mirror.read,
        mirror.computed,
        mirror.all_agree,
        mirror.values,
        formula.evaluate,
        mirror._Remembered.is_unwritten,
        mirror._load,
        mirror._remember,
        address_ranges.disjoint,
        address_ranges.span,
    ):
        skip_code(function.__code__)
