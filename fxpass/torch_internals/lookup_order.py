"""Dynamo's list of the graphs of a function keeps its order once a second thread runs what kvfix has compiled.

    thread 1    decode? its guards are under way ...         prefill, decode
    thread 2    prefill: found, and moved to the front       (the same list)
    thread 1    ... no; the next one: there is none          compiled again, up to Dynamo's limit

Dynamo moves each graph that it finds to the front of its list. A thread that waits in the middle of a guard goes on from the
place where its graph stands by then, and passes over those that were moved. Where the order is kept, the latest graph is asked
first, and no thread passes over any.
"""

from __future__ import annotations

from threading import get_ident

from fxpass.torch_internals.contracts import Feature, internal
from fxpass.torch_internals.features import holds

_move_to_front = internal("torch._C._dynamo.eval_frame._set_lru_cache")
threads: set[int] = set()
"""The first two threads that have been met."""


def meet() -> None:
    """Note which thread asks; each call of a compiled graph by a thread that is not among `threads` comes by here."""
    if len(threads) < 2:
        threads.add(get_ident())
        if len(threads) == 2 and holds(Feature.THREADS):
            _move_to_front(False)


def forget() -> None:
    """Forget which threads have been met, and let Dynamo do as it does without kvfix."""
    if len(threads) == 2 and holds(Feature.THREADS):
        _move_to_front(True)
    threads.clear()
