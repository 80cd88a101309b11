"""Arithmetic on the elements of one index tensor, written out as text and evaluated on the contents that the mirror holds.

    lens.max()            max(*v[0:64])
    (pad > 0).any()       any_of(gt(v[0], 0), gt(v[1], 0))

A guard on a number that many elements make holds such text, so that it asks once, and not once for each element.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .contents import Arith, Element, Entry, GraphInt, in_order, tensors
from .functions import COMPARISONS, FOLDS, choose, int32, on_host

MAX_LENGTH = 2**15
"""In characters: a longer formula is not made."""
_OPERATORS = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
_FUNCTIONS = {fn.__name__: on_host(fn) for fn in (*FOLDS, *COMPARISONS, *_OPERATORS, choose, int32, max, min)}


def formula_text(entry: Entry) -> str | None:
    """``entry`` as text over the elements ``v`` of one index tensor; None where it is not computed from exactly one."""
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
    """The number, or truth value, that the `formula_text` ``text`` makes of an index tensor that holds ``values``."""
    return _function(text)(values)


@functools.lru_cache(1024)
def _function(text: str) -> Callable[[Sequence[int]], Any]:
    return eval(f"lambda v: {text}", dict(_FUNCTIONS))
