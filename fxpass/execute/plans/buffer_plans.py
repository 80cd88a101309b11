"""Inputs that grow get buffers if no work is then left outside of the static core. Three plans are tried in turn:

    1. All inputs that grow get buffers.
    2. Inputs that the graph itself makes longer get buffers. Those that only the caller makes longer do not.
    3. No input gets a buffer, and the report's ``unbuffered`` says why.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.analysis.growth import longer_otherwise
from fxpass.analysis.kinds import Kinds
from fxpass.errors import Refusal
from fxpass.execute.buffers.growth import room_for
from fxpass.execute.calls.assemble import Plan
from fxpass.execute.partition.outside import works_on
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.normal_form import NormalForm, mode_of
from fxpass.graph.numbers import symbols
from fxpass.graph.unfit import Unfit
from fxpass.options import Options
from fxpass.report import Report, store
from fxpass.report.names import input_name
from fxpass.report.symbols import renamed
from fxpass.rewriting import Grower, reason
from fxpass.torch_internals.checkpoints import checkpoint
from fxpass.torch_internals.dynamo.inputs.numbers import NumberInputs
from fxpass.torch_internals.dynamo.inputs.origins import name_of
from fxpass.torch_internals.dynamo.sizes.capacity import Capacity
from fxpass.torch_internals.dynamo.sizes.dynamism import Restart


def with_buffers(
    planned: Callable[..., tuple[Plan, Kinds]],
    form: NormalForm,
    inputs: Sequence[Any],
    numbers: NumberInputs | None,
    settings: Options,
    report: Report,
) -> tuple[Plan, Kinds]:
    """What ``planned(form, grower)`` gives, if the inputs that the grower finds can have buffers; else ``planned(form)``.

    A plan with buffers that is given up leaves no guard.
    """
    env = mode_of(inputs).shape_env
    give_up = checkpoint(env)
    moving, rising = numbers.growing if numbers is not None else (set(), [])
    before = numbers.before if numbers is not None else {}
    for sizes in (rising, []):
        if not moving and not sizes:
            break
        capacity = Capacity(env, functools.partial(room_for, least=settings.capacity))
        grower = Grower(moving, sizes, is_heavy, capacity.beyond, name_of)
        try:
            with capacity:
                plan, kinds = planned(form, grower)
            if plan.growth.axes:
                return _checked(plan, capacity, settings, report), kinds
            if not grower.in_vain:
                _note_unbuffered(plan.gm.graph, moving - kinds.bound, sizes, before, report)
                return plan, kinds
            give_up()
        except (Restart, Unfit):
            raise
        except Exception as error:
            if not capacity.is_used:
                raise
            report.unbuffered = renamed(reason(error), report.names)
            give_up()
        if not grower.has_series:
            break
    plan, kinds = planned(form)
    _note_unbuffered(plan.gm.graph, moving - kinds.bound, [], before, report)
    return plan, kinds


def _checked(plan: Plan, capacity: Capacity, settings: Options, report: Report) -> Plan:
    """``plan``, whose buffers have the size ``capacity``, under the conditions that it has been asked about.

    Raises:
        Refusal: work is left outside of the static core, or a condition relates the capacity to other numbers.
    """
    _check_whole(plan, report)
    given = plan.gm.graph.find_nodes(op="placeholder")
    told = functools.partial(store.buffered, report, [input_name(given[one.place]) for one in plan.growth.axes])
    return dataclasses.replace(plan, growth=plan.growth.under(capacity.conditions(), settings.capacity, told))


def _check_whole(plan: Plan, report: Report) -> None:
    """Check that all the work of a graph with buffers is in its static core.

    Raises:
        Refusal: it is not.
    """
    by_caller = not any(one.rows for one in plan.growth.axes)
    if by_caller and (work := works_on([part.gm.graph for part in plan.parts], plan.growth.capacities)):
        raise Refusal(reasons.GROWS_WHOLE, what=work)
    refused = [f"{site.source}: {site.reason}" for site in report.sites if site.decision == "refused"]
    if outside := [*refused, *report.outside, *([] if plan.parts else ["nothing depends on its length"])]:
        raise Refusal(reasons.GROWTH_OUTSIDE, what=outside[0])


def _note_unbuffered(
    graph: fx.Graph, moving: Set[Any], rising: Sequence[Any], before: Mapping[tuple[int, int], int | None], report: Report
) -> None:
    """Note in ``report`` why inputs of ``graph`` that grow get no buffers: they are made longer, but not by a join, or all of a
    tensor with one of the sizes ``rising`` is worked on. ``before`` tells sizes as in `longer_otherwise`."""
    if not report.outside and not any(symbol.kind == "growth" for symbol in report.symbols):
        report.unbuffered = ""  # all that grows is a position
    names = [input_name(node) for node in longer_otherwise(graph, moving, before)]
    if names and not report.unbuffered:
        report.unbuffered = reasons.NO_JOIN.text(what=", ".join(names))
    lengths = {symbol for size in rising for symbol in symbols(size)} & moving
    if work := works_on([graph], lengths):
        store.note(report, reasons.GROWS_WHOLE.text(what=work))
