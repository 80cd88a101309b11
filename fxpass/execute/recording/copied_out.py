"""The results of a function that Inductor records by itself are copied out, as those of our own recordings are.

Inductor's next recording overwrites them, and whoever then looks at them gets an error: a caller who keeps the logits of each
step, or the next block of a model of which each block is compiled for itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.graph.memory_addresses import memory_address, memory_addresses

from .results import copy_at


class CopiedOut:
    """``run``, with copies in the place of its results. What lies in the memory of an argument stays as it is.

    Which results share memory, and which lie in that of an argument, is the same in all calls of a graph, so it is looked at
    in the first one.
    """

    def __init__(self, run: Callable[..., Sequence[Any]]) -> None:
        self._run = run
        self._places: list[list[int]] | None = None

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        results = list(self._run(*args))
        if self._places is None:
            self._places = _places(results, args)
        copy_at(results, self._places)
        return tuple(results)


def _places(results: Sequence[Any], args: Sequence[Any]) -> list[list[int]]:
    """The places of those of ``results`` that have memory of their own, grouped by memory."""
    given = memory_addresses(a for a in args if type(a) in (torch.Tensor, torch.nn.Parameter))
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for place, result in enumerate(results):
        if type(result) is torch.Tensor and memory_address(result) not in given:
            groups[memory_address(result)].append(place)
    return list(groups.values())
