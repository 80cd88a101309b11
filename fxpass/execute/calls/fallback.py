"""A part that does not compile, or fails when it first runs, costs the user nothing: the graph runs as it came.

    first call      prologue; core; epilogue fails         ->      what they wrote is put back; the graph as Dynamo gave it runs
    a later one     prologue; core fails, for new sizes    ->      what it wrote is put back, and it runs uncompiled; from the
                                                                   next call on the graph as Dynamo gave it

The graph as Dynamo gave it also runs once `growth` finds that an input no longer grows.

If that graph fails, too, the error is the model's own: nothing of the attempt is kept, and the error is raised.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fxpass.errors import NotGrowing
from fxpass.execute.compilation.regions import Region
from fxpass.execute.partition.split import Part
from fxpass.graph import aliases


class WithFallback:
    """Runs ``run``, whose ``regions`` compile themselves when they are first called, and another function once one has failed.

    written: the places of the arguments that ``run`` writes to. These arguments are copied before the first call. Before a
        call in which a part is compiled anew, those that the part writes to are copied.
    instead: makes the function that runs after a failure.
    failed: is called with the error, once.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        regions: Sequence[Region],
        written: Sequence[int],
        instead: Callable[[], Callable[..., Any]],
        failed: Callable[[Exception], None],
    ) -> None:
        self._run, self._written = run, written
        self._make, self._failed = instead, failed
        self._instead: Callable[..., Any] | None = None
        self._has_run = False
        for region in regions:
            region.attempt = functools.partial(self._attempt, region.part)

    def __call__(self, *args: Any) -> Any:
        if self._instead is not None:
            return self._instead(*args)
        if self._has_run:
            try:
                return self._run(*args)
            except NotGrowing as error:  # nothing has been written yet
                return self._fall_back(args, error)
        try:
            with _put_back(args, self._written):
                results = self._run(*args)
        except Exception as error:
            return self._fall_back(args, error)
        self._has_run = True
        return results

    def _attempt(self, part: Part, run: Callable[[Sequence[Any]], Any], args: Sequence[Any]) -> Any:
        """Call ``run(args)``, which compiles ``part``, and contain its failure. In a first call `__call__` contains it."""
        if not self._has_run:
            return run(args)
        try:
            with _put_back(args, aliases.written_places(part.gm.graph)):
                return run(args)
        except Exception as error:
            return self._switch(part.gm.forward, args, error, self._make())

    def _fall_back(self, args: Sequence[Any], error: Exception) -> Any:
        instead = self._make()
        return self._switch(instead, args, error, instead)

    def _switch(self, now: Callable[..., Any], args: Sequence[Any], error: Exception, later: Callable[..., Any]) -> Any:
        """Call ``now`` in place of what has failed. From the next call on, ``later`` runs."""
        try:
            results = now(*args)
        except Exception:
            raise error from None  # it is the model's own, and comes up without kvfix, too
        self._instead = later
        self._failed(error)
        return results


@contextlib.contextmanager
def _put_back(args: Sequence[Any], written: Sequence[int]) -> Iterator[None]:
    """Put back what the arguments at the places ``written`` held before the block, should it fail or be interrupted."""
    before = [args[i].clone() for i in written]
    try:
        yield
    except BaseException:  # a call that the user interrupts can be made again, too
        with torch.no_grad():
            for i, contents in zip(written, before, strict=True):
                args[i].copy_(contents)
        raise
