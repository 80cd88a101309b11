"""The cores of a plan: its graph is cut, and a core is compiled for each value of what is bound in it.

    plan    x[s0, 8], rows s1; s1 is bound      ->      cut: prologue(x) -> core      a core for s1 = 3, one for s1 = 4
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.analysis.kinds import Kinds, Symbol
from fxpass.execute.calls.assemble import Plan
from fxpass.execute.calls.strides import kept_strides
from fxpass.execute.partition.outside import beside, outside, works_on
from fxpass.execute.partition.split import split
from fxpass.graph import aliases
from fxpass.graph.numbers import symbols
from fxpass.graph.postconditions import check_core
from fxpass.report import Report, store
from fxpass.report.drawing import later
from fxpass.report.kept_nodes import kept, without_tensors
from fxpass.torch_internals.dynamo.inputs.numbers import NumberInputs
from fxpass.torch_internals.dynamo.names import config

from .watched_variants import WatchedVariants


def cut(plan: Plan, report: Report) -> Plan:
    """``plan``, with its graph cut into parts: what has symbols that are not bound stands outside of the core.

    Raises:
        Broken: the core has a symbol that is not bound.
    """
    with store.timed(report, "split"):
        parts = split(plan.gm, plan.bound)
    for part in parts:
        if part.static:
            check_core(part.gm, plan.bound)
    report.parts = [(part.name, part.static, sum(n.op == "call_function" for n in part.gm.graph.nodes)) for part in parts]
    report.drawings.parts = [(part.name, part.static, later(without_tensors(kept(part.gm.graph)))) for part in parts]
    report.outside = outside([part.gm.graph for part in parts if not part.static], plan.bound, report.symbols)
    report.beside = beside(parts)
    return dataclasses.replace(plan, parts=parts)


def note_work(graph: fx.Graph, kinds: Kinds, report: Report) -> None:
    """Note in ``report`` the heavy ops of ``graph`` whose sizes move from step to step. The graph has no core.

    The sizes of a cache that is written stay. A graph that works on all of a prompt is no step, and nothing is noted.
    """
    kept = {s for n in graph.nodes for w in aliases.written(n) for s in symbols(aliases.root(w).meta["val"])}
    prompts = {symbol for symbol in kinds.symbols - kept if kinds.of_symbol(symbol) == "growth"}
    if works_on([graph], prompts) is None:
        report.outside = outside([graph], kinds.bound | kept, report.symbols, is_part=False)


def in_cores(
    plan: Plan,
    kinds: Kinds,
    numbers: NumberInputs,
    report: Report,
    made: Callable[[Plan], Callable[..., Any]],
    otherwise: Callable[[Exception], Callable[..., Any]],
    complain: Callable[[], None],
) -> Callable[..., Any]:
    """The function that ``made`` makes of ``plan``, with a core for each value of what is bound in it.

    A number that has had too many values is bound no more: ``plan`` is cut again, and ``made`` makes the function again. Where
    that fails, ``otherwise`` makes it; where it leaves work outside of the core, ``complain`` is called.
    """
    strides = kept_strides(plan.gm)
    counted = plan.bound - plan.capacities - plan.chunks | strides
    left = {n.place: n for n in numbers.bound(kinds, strides) if n.symbols & counted}
    is_step = bool(plan.growth.axes) or any(symbol.kind == "position" for symbol in report.symbols)

    def again(places: Sequence[int]) -> Callable[..., Any]:
        nonlocal plan
        moved = [left.pop(place) for place in places]
        for number in moved:
            numbers.correct(number)
            report.corrected.append(number.name)
            store.note(report, reasons.CORRECTED.text(of=number.name))
        others = [symbol for symbol in report.symbols if symbol.of not in report.corrected]
        report.symbols = others + [Symbol(", ".join(map(str, n.symbols)), "growth", n.name) for n in moved]
        report.kinds |= {str(symbol): "growth" for n in moved for symbol in n.symbols}
        plan = cut(dataclasses.replace(plan, bound=plan.bound - {s for n in moved for s in n.symbols}), report)
        if not is_step:  # prompts of any length: as in stock
            report.outside = []
        return made(plan)

    def told() -> None:
        if report.outside:
            complain()

    if not left:
        return made(plan)
    return WatchedVariants(made(plan), list(left), again, config.recompile_limit - 1, otherwise, told)
