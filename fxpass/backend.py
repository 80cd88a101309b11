"""``torch.compile(model, backend="kvfix")``: the pipeline, top to bottom.

capture    Dynamo, taught to guard on positions, hands over a graph; it is brought to its normal form
analysis   sites, extents: what uses a position, and where what it cuts off would show
rewrite    full reads, masks, indexed writes
check      post-conditions
hand-off   cut into a dynamic prologue, a static core, a dynamic epilogue; each compiled for itself
verify     the first calls compared with the graph as it came, where that is asked for
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.api import rewrite_normal_form
from fxpass.execute.assemble import Plan, assemble
from fxpass.execute.compilers import as_stock, get_ready
from fxpass.execute.partition.outside import outside
from fxpass.execute.partition.split import counts_along, split
from fxpass.execute.precompiled import put_in_cache, serialize_for_cache
from fxpass.execute.recording.addresses import layouts
from fxpass.execute.recording.carry import carry_indices, is_recorded
from fxpass.execute.untouched import untouched
from fxpass.execute.watched_variants import WatchedVariants
from fxpass.graph.normal_form import Unfit, fake_inputs
from fxpass.graph.postconditions import Broken, check_core
from fxpass.index_tensors.advance import Advance
from fxpass.kernels.select import use_kernels
from fxpass.options import Options, parse
from fxpass.report import Report, store
from fxpass.report.readable import readable_code
from fxpass.torch_internals.contracts import Feature, holds
from fxpass.torch_internals.dynamo.compilation import broken_at
from fxpass.torch_internals.dynamo.disjoint import guard_disjoint
from fxpass.torch_internals.dynamo.dynamism import Restart, expect, generalize
from fxpass.torch_internals.dynamo.number_inputs import NumberInput, NumberInputs
from fxpass.torch_internals.inductor.stock import compile_stock
from fxpass.torch_internals.install import install
from fxpass.torch_internals.patches import take_faults
from fxpass.torch_internals.precompile import hooks as precompile
from fxpass.verify import original_of, verified


def kvfix(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Callable[..., Any]:
    """The backend, as `torch.compile` calls it: a Dynamo graph and its inputs in, a callable out.

    ``name``, of what is compiled, stands in the report.

    Raises:
        RuntimeError: an unknown option or mode (already at ``torch.compile``).
        KvfixError: with ``strict``, where something could not be rewritten; with ``verify``, from a call that differs.
    """
    given = parse(options, mode)
    settings = given.on(example_inputs)
    if not holds(Feature.NEEDED) or settings.compiler == "inductor" and not holds(Feature.INDUCTOR):
        return compile_stock(gm, example_inputs)
    report, original = store.new_report(name), original_of(gm, settings)
    report.faults = take_faults()
    if broken := broken_at(gm):
        report.ended = reasons.BREAK.text(why=broken[0], where=broken[1])
    advance, cause, numbers = Advance(), None, NumberInputs(gm)
    report.symbols = numbers.table()
    plan = saved = compiled = None
    try:
        advance = Advance.of(gm)
        guard_disjoint(gm)
        plan = prepare(gm, example_inputs, settings, report, numbers.variants)
        saved = serialize_for_cache(plan, settings) if plan is not None and precompile.is_caching(gm) else None
        as_it_came = functools.partial(as_stock, gm, settings)
        failed, note = functools.partial(store.failed, report, settings), functools.partial(store.note, report)
        if plan is not None and plan.parts:
            compiled = in_cores(plan, numbers.variants, report, lambda cut: assemble(cut, settings, as_it_came, failed, note))
    except Restart:
        raise
    except Exception as error:  # a fault of ours must not cost the user the call: the graph runs as it is
        plan, saved, cause = None, None, error
        expected = isinstance(error, (Unfit, Broken))
        report.unfit = str(error) if expected else reasons.PASS_FAILED.text(error=f"{type(error).__name__}: {error}")
    store.add(report)
    store.complain(report, settings, cause)
    if compiled is None:
        compiled = untouched(gm, example_inputs, plan and plan.gm, settings)
    if precompile.is_caching(gm):
        put_in_cache(gm, report, given, saved, advance)
    return verified(advance.after(numbers.watching(compiled)), original, plan, report, settings)


def prepare(
    gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Options, report: Report, variants: Sequence[NumberInput] = ()
) -> Plan | None:
    """The graph rewritten and cut; without parts where there is nothing to rewrite, and no number to keep out of the core.
    None where the rewrite is switched off."""
    if not settings.rewrite:
        store.note(report, reasons.OFF.text())
        return None
    inputs = fake_inputs(gm, example_inputs)
    normal, rewritten = rewrite_normal_form(gm, inputs, report, {number.name for number in variants})
    generalize(normal, rewritten.sites)
    static = rewritten.steady | layouts(normal)
    if not any(d.rewritten for d in rewritten.decisions):
        expect(gm, normal)
        if not counts_along(normal, static):
            return Plan(normal)
    carried = None
    if is_recorded(settings, inputs):
        if settings.kernels:
            use_kernels(normal, rewritten.marks)
        carried = carry_indices(normal)
    plan = Plan(normal, capacity=static, carried=carried)
    return cut(plan, {s for number in variants for s in number.symbols}, report)


def cut(plan: Plan, variants: Set[Any], report: Report) -> Plan:
    """``plan``, with its graph cut anew; ``variants`` are symbols that its static part may have beside the capacities."""
    static = plan.capacity | variants
    with store.timed(report, "split"):
        parts = split(plan.gm, static)
    for part in parts:
        if part.static:
            check_core(part.gm, set(static))
    report.parts = [(part.name, part.static, len(part.gm.graph.nodes)) for part in parts]
    report.core = "\n".join(readable_code(part.gm, report.symbols) for part in parts if part.static)
    report.outside = outside(parts, static, report.symbols, [s.position for s in report.sites if s.decision == "refused"])
    return dataclasses.replace(plan, parts=parts, capacity=static, variants=variants - plan.capacity)


def in_cores(
    plan: Plan, variants: Sequence[NumberInput], report: Report, made: Callable[[Plan], Callable[..., Any]]
) -> Callable[..., Any]:
    """What is ``made`` of ``plan``: one core for each value of its ``variants``, as long as these keep still."""
    left = {number.place: number for number in variants if number.symbols & plan.variants}

    def again(places: Sequence[int]) -> Callable[..., Any]:
        moved = {s for place in places for s in left[place].symbols & plan.variants}
        report.corrected += [left.pop(place).name for place in places]
        report.symbols = [s._replace(kind="growth") if s.of in report.corrected else s for s in report.symbols]
        return made(cut(dataclasses.replace(plan, capacity=plan.capacity - moved), frozenset(), report))

    return WatchedVariants(made(plan), list(left), again) if left else made(plan)


install(kvfix, get_ready, store.reset)
