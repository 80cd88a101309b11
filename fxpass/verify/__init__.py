"""The self-check, ``options={"verify": n}``: the first n calls of a graph also run as Dynamo gave it, and must agree.

    compiled(*args)        ->        expected = original(*copied(args))           (the graph before the pass, eager)
                                     found = compiled(*args)
                                     results and inputs of both are compared

The copies share memory as the inputs do, and both runs draw the same random numbers. A difference raises `KvfixError`. It names
the first value that differs, the sites, and a script that reproduces the difference by itself.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import KvfixError
from fxpass.execute.calls.assemble import Plan
from fxpass.options import Options
from fxpass.report import Report

from .copies import copied
from .exact import is_exact, moved_only
from .outcome import Outcome, difference
from .script import write_script


def original_of(gm: fx.GraphModule, settings: Options) -> fx.GraphModule | None:
    """A copy of the Dynamo graph ``gm``, which compilers may edit; None where nothing is to be verified.

    It does not know its first inputs, as Dynamo's own soon will not: what is held weakly cannot be swapped.
    """
    if not settings.verify:
        return None
    graph = copy.deepcopy(gm.graph)
    for node in graph.find_nodes(op="placeholder"):
        node.meta.pop("grapharg", None)
    return fx.GraphModule(gm, graph, "Graph")


def verified(
    compiled: Callable[..., Any],
    original: fx.GraphModule | None,
    plan: Plan | None,
    report: Report,
    settings: Options,
) -> Callable[..., Any]:
    """``compiled``, made from ``original`` by ``plan``, whose first calls are compared with ``original``'s.

    Without an ``original`` (see `original_of`) it is ``compiled`` itself. Afterwards a call costs a look at a counter.
    """
    if original is None:
        return compiled
    moved = moved_only(plan.gm) if plan is not None and plan.parts else None
    check: _Check | None = _Check(original, moved, report, settings)
    calls = 0

    def run(*args: Any) -> Any:
        nonlocal calls, check
        if check is None:
            return compiled(*args)
        calls += 1
        now = check
        if calls >= settings.verify:
            check = None
        return now(compiled, args, calls)

    return run


@dataclasses.dataclass
class _Check:
    """Both runs of a call. ``moved`` lists the inputs that the rewritten graph computes nothing for; None where nothing was
    rewritten."""

    original: fx.GraphModule
    moved: set[int] | None
    report: Report
    settings: Options

    def __call__(self, compiled: Callable[..., Any], args: Sequence[Any], call: int) -> Any:
        before = copied(args)
        mine = copied(before)
        devices = {a.device.index for a in args if isinstance(a, torch.Tensor) and a.device.type == "cuda"}
        with torch.random.fork_rng(sorted(devices)), torch.set_grad_enabled(torch.is_grad_enabled()):
            expected = Outcome.of(self.original, mine)
        found = Outcome.of(compiled, args)
        exact = is_exact(self.settings, self.moved, len(args))
        names = [str(n.target) for n in self.original.graph.find_nodes(op="placeholder")]
        if isinstance(found.error, KvfixError):  # ``strict`` is not a difference
            raise found.error
        differs = difference(found, expected, exact, names)
        if differs:
            raise KvfixError(self._message(differs, call, before, exact)) from found.error or expected.error
        return found.result()

    def _message(self, differs: str, call: int, before: Sequence[Any], exact: tuple[bool, Sequence[bool]]) -> str:
        sites = dict.fromkeys(
            f"{s.source or s.buffer}: {s.kind} at {s.position}, {s.decision}" for s in self.report.sites
        )
        title = f"kvfix: {reasons.DIFFERS.text(graph=self.report.name, call=call, how=differs)}"
        try:
            shown = f"shown alone by {write_script(self.original, before, exact, self.settings, title)}"
        except Exception as error:  # whatever a model takes: the difference is to be told all the same
            shown = f"no script shows it alone, for its inputs cannot be saved: {type(error).__name__}: {error}"
        return "\n  ".join([title, *(sites or ["no site"]), shown])
