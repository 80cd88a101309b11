"""Which rule says what an op makes of index tensors, by the name that PyTorch gives the op (see `operators.by_operator`)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .arithmetic import (
    clamp,
    divide,
    elementwise,
    fold,
    in_place,
    logical,
    masked_fill,
    negate,
    quantify,
    truths,
    where,
)
from .functions import COMPARISONS, all_of, any_of, how_many, place_of_max, place_of_min, product
from .indexing import (
    arange,
    as_number,
    cast,
    chunk,
    expand,
    fill,
    flip,
    full,
    getitem,
    joined,
    like,
    permute,
    reshape,
    select,
    setitem,
    split,
    squeeze,
    tensor,
    unbind,
    unsqueeze,
    view,
)
from .reductions import cumsum, largest, over_dims, smallest, summed

_ARITHMETIC = {fn.__name__: fn for fn in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)}
_BINARY: dict[str, Callable[..., Any]] = {
    **_ARITHMETIC,
    **{fn.__name__: fn for fn in COMPARISONS},
    **{f"__{fn.__name__}__": fn for fn in COMPARISONS},
    "maximum": max,
    "minimum": min,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
}

RULES: dict[str, Callable[..., np.ndarray | list[np.ndarray]]] = {
    **{name: elementwise(fn) for name, fn in _BINARY.items()},
    **{f"{name}_": in_place(elementwise(fn)) for name, fn in _ARITHMETIC.items()},
    "getitem": getitem,
    "setitem": setitem,
    "select": select,
    "unbind": unbind,
    "split": split,
    "chunk": chunk,
    "view": view,
    "reshape": reshape,
    "flatten": lambda a: a.reshape(-1),
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "detach": lambda a: a,
    "_get_data_attr": lambda a: a,
    "contiguous": lambda a: a,
    "cpu": lambda a: a,
    "cat": joined(np.concatenate),
    "stack": joined(np.stack),
    "neg": lambda a: elementwise(operator.sub)(0, a),
    "div": divide,
    "clamp": clamp,
    "clone": lambda a, **_: a.copy(),
    "to": cast,
    "int": as_number,
    "long": as_number,
    "copy_": fill,
    "fill_": fill,
    "zero_": lambda a: fill(a, 0),
    "max": largest,
    "min": smallest,
    "amax": over_dims(fold(max)),
    "amin": over_dims(fold(min)),
    "sum": over_dims(summed),
    "prod": over_dims(fold(product)),
    "argmax": over_dims(fold(place_of_max)),
    "argmin": over_dims(fold(place_of_min)),
    "count_nonzero": over_dims(quantify(how_many)),
    "bool": truths,
    "any": over_dims(quantify(any_of)),
    "all": over_dims(quantify(all_of)),
    "cumsum": cumsum,
    "flip": flip,
    "permute": permute,
    "transpose": lambda a, *dims: a.swapaxes(*dims),
    "t": lambda a: a.T,
    "expand": expand,
    "zeros_like": like(0),
    "ones_like": like(1),
    "where": where,
    "masked_fill": masked_fill,
    "logical_and": logical(all_of),
    "logical_or": logical(any_of),
    "__and__": logical(all_of),
    "__or__": logical(any_of),
    "bitwise_and": logical(all_of),
    "bitwise_or": logical(any_of),
    "logical_not": negate,
    "invert": negate,
    "bitwise_not": negate,
}
"""``rule(*args, **kwargs)`` gives the result, a list where the op gives several views. It writes to the arrays of the operands
that the op writes to."""

FACTORIES: dict[str, Callable[..., np.ndarray]] = {
    "arange": arange,
    "tensor": tensor,
    "full": full,
    "scalar_tensor": lambda shape, value, **named: full(shape, shape, value),
    "zeros": lambda shape, *_, **named: full(shape, shape, 0),
    "ones": lambda shape, *_, **named: full(shape, shape, 1),
}
"""``factory(shape, *args, **kwargs)`` gives a new small tensor that is made from numbers."""
