"""A part that does not compile, or fails when it first runs, costs the user nothing: the graph runs as it came.

    prologue; core; epilogue fails        ->        what they wrote is put back; the graph as Dynamo gave it runs instead

From what grows no more, as `growth` finds out, the graph goes the same way.

What fails there as well is the model's own error: nothing is kept of the attempt, and the error is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.errors import NotGrowing

from .regions import Region


class WithFallback:
    """``run``, made of ``regions`` that compile themselves when they are first called; where one fails then, another function.

    written: the places of the arguments that ``run`` writes to. They are copied for the calls in which a part runs first.
    instead: makes the function that runs from then on.
    failed: told of the error, once.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        regions: Sequence[Region],
        written: Sequence[int],
        instead: Callable[[], Callable[..., Any]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._run, self._regions, self._written = run, regions, written
        self._make, self._failed = instead, failed
        self._instead: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._instead is not None:
            return self._instead(*args)
        if all(region.variants for region in self._regions):
            try:
                return self._run(*args)
            except NotGrowing as error:
                return self._fall_back(args, error)
        before = [args[i].clone() for i in self._written]
        try:
            return self._run(*args)
        except BaseException as error:
            with torch.no_grad():
                for i, contents in zip(self._written, before, strict=True):
                    args[i].copy_(contents)
            if not isinstance(error, Exception):
                raise  # the user has interrupted it: the call can be made again
            return self._fall_back(args, error)

    def _fall_back(self, args: Sequence[Any], error: Exception) -> Any:
        instead = self._make()
        try:
            results = instead(*args)
        except Exception:
            raise error from None  # the model's own, or one that is met without us too
        self._instead = instead
        self._failed(error)
        return results
