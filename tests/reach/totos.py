"""toto-ts used in other ways: numbers of variates, batches, layers, and what `torch.compile` is told of dynamic shapes.

``kvfix reach tests.reach.totos --case variates`` runs one of them.
"""

from __future__ import annotations

import functools
from typing import Any

from .cases import Case, Series, toto

VARIATES = (Series(), Series(variates=3), Series(variates=7))
BATCHES = (Series(), Series(2), Series(4, ids=True), Series(variates=3, exogenous=1))


def _case(name: str, pattern: str, graphs: int, **how: Any) -> Case:
    return Case(name, "model/util.py KVCache", pattern, functools.partial(toto, **how), graphs=graphs)


CASES = [
    _case("variates", "forecasts of 2, 3 and 7 variates", 4, series=VARIATES),
    _case("batches", "1, 2 and 4 series, with ids, with exogenous variables", 6, series=BATCHES),
    _case("layers", "models of 2, 3 and 4 layers", 6, layers=(2, 3, 4)),
    _case("dynamic", "`dynamic=True`", 4, series=VARIATES, dynamic=True),
    _case("static", "`dynamic=False`", 4, series=VARIATES, dynamic=False),
]
