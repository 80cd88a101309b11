"""One process of two: decodes with a small model, compared with eager at every step, and keeps what it compiled.

    python precompiled.py CACHE COMPILER CAPACITY...        TORCH_CACHING_PRECOMPILE=1 and a cache directory in the environment

Prints one JSON object: the graphs that Dynamo traced, reports, warnings, reads of the index for guards.
"""

from __future__ import annotations

import enum
import json
import sys
import warnings
from typing import NamedTuple

import torch
from small_models import CACHES, Attention, Custom, graphs, kvfix, largest_places, same_step, steps

import fxpass
from fxpass.index_tensors import mirror


class Sums(NamedTuple):
    keys: torch.Tensor
    values: torch.Tensor


class Scale(enum.Enum):
    ONE = 1
    TWO = 2


class Holding(Attention):
    """What it computes depends on an object that it holds, which Dynamo guards on by identity."""

    def __init__(self, held) -> None:
        super().__init__()
        self.held = held

    def attend(self, *args):
        attended = super().attend(*args)
        if isinstance(self.held, Scale):
            return attended * 2 if self.held is Scale.TWO else attended
        return self.held(attended)


HELD = {"ONE": Scale.ONE, "TWO": Scale.TWO, "sin": torch.sin, "cos": torch.cos}
HELD |= {"twice": lambda x: x * 2, "thrice": lambda x: x * 3}


def sums(k, v):
    return Sums(k.sum(2), v.sum(2))


def breaks(k, v):
    keys = k.sum(2)
    torch._dynamo.graph_break()
    return Sums(keys, v.sum(2))


FINISH = {"refused": largest_places, "named": sums, "breaks": breaks}


class Apart(CACHES["item"]):
    """Reads as far as a second index tensor says, which is a view of the first if ``together``."""

    together = False

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.second = self.index[:] if self.together else self.index.clone()

    def read(self):
        end = int(self.second[0].item()) + 1
        return self.keys[:, :, :end], self.values[:, :, :end]


def main(kind: str, compiler: str, *capacities: str) -> None:
    torch.set_num_threads(1)
    model = Custom(FINISH[kind]) if kind in FINISH else Holding(HELD[kind]) if kind in HELD else Attention()
    model.eval()
    Apart.together = kind == "together"
    make = Apart if kind in ("apart", "together") else CACHES.get(kind, CACHES["item"])
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        compiled = kvfix(model.forward, compiler)
        for capacity in map(int, capacities):
            for _ in range(2):
                eager_cache, cache = make(capacity), make(capacity)
                for i, x in enumerate(steps()):
                    same_step(
                        f"capacity {capacity}, step {i}", model, compiled, x, eager_cache, cache, compiler == "eager"
                    )
    torch.compiler.save_cache_artifacts()
    reports = fxpass.reports()
    ours = [str(w.message) for w in caught if issubclass(w.category, fxpass.KvfixWarning)]
    found = {"graphs": graphs(), "reports": [r.name for r in reports], "rewritten": sum(r.rewritten for r in reports)}
    print(json.dumps({**found, "warnings": ours, "refreshes": mirror.counters.refreshes, "hits": mirror.counters.hits}))


main(*sys.argv[1:])
