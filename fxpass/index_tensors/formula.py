"""Arithmetic on the elements of one index tensor as text, which is evaluated on what the mirror holds.

    lens.max()            max(*v[0:64])
    (pad > 0).any()       any_of(gt(v[0], 0), gt(v[1], 0))

Such text stands in the guard on a number that many elements make: one question for all of them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .arithmetic import COMPARISONS, FOLDS, int32
from .contents import Arith, Element, Entry, GraphInt, in_order, tensors

MAX_LENGTH = 2**15
"""Longer text than this is not worth its guard."""
_OPERATORS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
_FUNCTIONS = {fn.__name__: fn for fn in (*FOLDS, *COMPARISONS, *_OPERATORS, int32, max, min)}


def formula(entry: Entry) -> str | None:
    """``entry`` over the elements ``v`` of the one index tensor that it is computed from, or None where it is not."""
    parts = in_order([entry])
    if any(isinstance(part, GraphInt) for part in parts) or len(tensors([entry])) != 1:
        return None
    texts: dict[Entry, str] = {}
    for part in parts:
        texts[part] = f"v[{part.index}]" if isinstance(part, Element) else _call(part, texts)  # type: ignore
        if len(texts[part]) > MAX_LENGTH:
            return None
    return texts[entry]


def _call(part: Arith, texts: dict[Entry, str]) -> str | None:
    name, places = part.fn.__name__, [a.index for a in part.args if isinstance(a, Element)]
    if len(places) == len(part.args) > 2 and places == list(range(places[0], places[0] + len(places))):
        return f"{name}(*v[{places[0]}:{places[-1] + 1}])"
    return f"{name}({', '.join(repr(a) if isinstance(a, int) else texts[a] for a in part.args)})"


def evaluate(text: str, values: Sequence[int]) -> Any:
    """The number or bool that the `formula` ``text`` gives for an index tensor that holds ``values``."""
    return _function(text)(values)


@functools.cache
def _function(text: str) -> Callable[[Sequence[int]], Any]:
    return eval(f"lambda v: {text}", dict(_FUNCTIONS))
