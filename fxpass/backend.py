"""``torch.compile(model, backend="kvfix")``: the pipeline, top to bottom.

capture    Dynamo, taught to guard on positions, hands over a graph; it is brought to its normal form
analysis   sites, extents: what uses a position, and where what it cuts off would show
rewrite    full reads, masks, indexed writes
check      post-conditions
hand-off   cut into a dynamic prologue, a static core, a dynamic epilogue; each compiled for itself
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from fxpass.execute import untouched as handoff
from fxpass.execute.precompiled import keep, save
from fxpass.graph.postconditions import Broken, check_core, check_graph, signature
from fxpass.options import Options, parse
from fxpass.report import Report, readable
from fxpass.report import store as log
from fxpass.report.readable import source_of
from fxpass.report.sites import predicate_sites, sites_of
from fxpass.rewrite import Rewritten, rewrite_graph
from fxpass.torch_internals.dynamo import install as capture
from fxpass.torch_internals.precompile import hooks as precompile


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
        KvfixError: with ``strict``, where something could not be rewritten.
    """
    settings = parse(options, mode)
    report = log.new_report(name)
    advance, cause = capture.Advance(), None
    plan = saved = compiled = None
    try:
        advance = capture.Advance.of(gm)
        plan = prepare(gm, example_inputs, settings, report)
        saved = save(plan, settings) if precompile.is_wanted(gm) else None
        compiled = handoff.assemble(plan, settings) if plan.parts else None
    except capture.Restart:
        raise
    except Exception as error:  # a fault of ours must not cost the user the call: the graph runs as it is
        plan, saved, cause = None, None, error
        expected = isinstance(error, (capture.Unfit, Broken))
        report.unfit = str(error) if expected else f"the pass failed: {type(error).__name__}: {error}"
    log.add(report)
    log.complain(report, settings, cause)
    if compiled is None:
        compiled = handoff.untouched(gm, example_inputs, plan and plan.gm, settings)
    if precompile.is_wanted(gm):
        keep(gm, report, settings, saved, advance)
    return advance.after(compiled)


def prepare(gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Options, report: Report) -> handoff.Plan:
    """The graph rewritten and cut; without parts where there is nothing to rewrite."""
    inputs = capture.fake_inputs(gm, example_inputs)
    normal, rewritten = rewrite_normal_form(gm, inputs, report)
    capture.generalize(normal, rewritten.sites)
    if not any(d.rewritten for d in rewritten.decisions):
        capture.expect(gm, normal)
        return handoff.Plan(normal)
    carried = None
    if handoff.is_recorded(settings, inputs):
        handoff.use_kernels(normal)
        carried = handoff.carry_indices(normal)
    with log.timed(report, "split"):
        parts = handoff.split(normal, rewritten.capacity)
    for part in parts:
        if part.static:
            check_core(part.gm, rewritten.capacity)
    report.parts = [(part.name, part.static, len(part.gm.graph.nodes)) for part in parts]
    return handoff.Plan(normal, parts, rewritten.capacity, carried)


def rewrite_normal_form(gm: fx.GraphModule, inputs: Sequence[Any], report: Report) -> tuple[fx.GraphModule, Rewritten]:
    """``gm`` in normal form, rewritten and checked; ``report`` is filled in."""
    with log.timed(report, "normal form"):
        normal = capture.normal_form(gm, inputs)
        before, ops = signature(normal), handoff.snapshot(normal)
    report.before = report.after = readable(normal)
    with log.timed(report, "rewrite"):
        rewritten = rewrite_graph(normal, capture.origins(normal), capture.name_of, source_of, capture.take_apart)
    report.flow = rewritten.flow
    report.sites = predicate_sites(gm) + sites_of(rewritten, capture.name_of)
    with log.timed(report, "propagate"):
        handoff.propagate(normal, inputs, ops)
    check_graph(normal, before, may_read=report.refused > 0)
    report.after = readable(normal)
    return normal, rewritten


capture.install(kvfix, handoff.get_ready)
