"""Results that share memory once they are compiled, but not in the graph, are copied.

    a, b = clone(x), clone(x)       Inductor takes out both clones, and gives ``x`` twice

Which results these are shows in the first call, and is the same in all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.execute.partition.split import Part
from fxpass.execute.recording.results import copy_at
from fxpass.graph import aliases
from fxpass.graph.memory_addresses import memory_address


def with_unshared_results(
    run: Callable[..., Sequence[Any]], part: Part, args: Sequence[Any], results: Sequence[Any]
) -> tuple[Callable[..., Sequence[Any]], Sequence[Any]]:
    """``run``, and the ``results`` that it has given for ``args``, with a copy in the place of each result that shares memory
    with an input or an earlier result, though it does not in the graph of ``part``."""
    given = ((n, a) for n, a in zip(part.inputs, args, strict=True) if isinstance(a, torch.Tensor))
    known = {(memory_address(a), aliases.storage(n)) for n, a in given}
    shared = []
    for place, (node, result) in enumerate(zip(part.outputs, results, strict=True)):
        if isinstance(result, torch.Tensor) and (address := memory_address(result)):
            memory = aliases.storage(node)
            if any(other == address for other, _ in known) and (address, memory) not in known:
                shared.append([place])
            else:
                known.add((address, memory))
    if not shared:
        return run, results

    def copied(given: Sequence[Any]) -> list[Any]:
        made = list(given)
        copy_at(made, shared)
        return made

    return lambda *now: copied(run(*now)), copied(results)
