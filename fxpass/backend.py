"""``torch.compile(model, backend="kvfix")``: the pipeline, top to bottom.

capture    Dynamo, taught to guard on positions, hands over a graph; it is brought to its normal form
analysis   sites, extents: what uses a position, and where what it cuts off would show
rewrite    full reads, masks, indexed writes
check      post-conditions
hand-off   cut into a dynamic prologue, a static core, a dynamic epilogue; each compiled for itself
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from fxpass import capture, handoff, log
from fxpass.capture import precompile
from fxpass.check import Broken, check_core, check_graph, signature
from fxpass.errors import KvfixError, KvfixWarning
from fxpass.options import Options, parse
from fxpass.report import Report, readable
from fxpass.report.readable import source_of
from fxpass.report.sites import predicate_sites, sites_of
from fxpass.rewrite import Rewritten, rewrite_graph


def kvfix(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """The backend, as `torch.compile` calls it: a Dynamo graph and its inputs in, a callable out.

    Raises:
        RuntimeError: an unknown option or mode (already at ``torch.compile``).
        KvfixError: with ``strict``, where something could not be rewritten.
    """
    settings = parse(options, mode)
    report = log.new_report()
    plan = saved = compiled = None
    try:
        plan = prepare(gm, example_inputs, settings, report)
        saved = save(plan, settings) if precompile.is_wanted(gm) else None
        compiled = handoff.assemble(plan, settings) if plan.parts else None
    except capture.Restart:
        raise
    except (capture.Unfit, Broken) as failure:
        report.unfit, plan, saved = str(failure), None, None
    except Exception as error:  # a fault of ours must not cost the user the call: the graph runs as it is
        report.unfit, plan, saved = f"the pass failed: {type(error).__name__}: {error}", None, None
    log.add(report)
    complain(report, settings)
    if compiled is None:
        compiled = handoff.untouched(gm, example_inputs, plan and plan.gm, settings)
    advance = capture.Advance.of(gm)
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


def save(plan: handoff.Plan, settings: Options) -> Callable[[], Callable[..., Any]] | None:
    """``plan`` for torch's precompile cache; None, with a warning, where it cannot be kept."""
    try:
        return handoff.save(plan, settings).compile
    except Exception as error:
        precompile.not_kept(error)
        return None


def keep(gm: fx.GraphModule, report: Report, settings: Options, saved: Any, advance: capture.Advance) -> None:
    """Put ``gm``'s compiled function into torch's precompile cache, as AOTAutograd has kept it, or as it was ``saved``."""
    try:
        make = precompile.made_by_torch(gm) or saved
        if make is not None:
            precompile.keep(gm, settings, Kept(report, settings, make, advance))
    except Exception as error:  # whatever is in the options
        precompile.not_kept(error)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A compiled graph in torch's precompile cache: called in another process, it makes the function and reports again."""

    report: Report
    settings: Options
    make: Callable[[], Callable[..., Any]]
    advance: capture.Advance

    def __call__(self) -> Callable[..., Any]:
        compiled = self.advance.after(self.make())
        report = dataclasses.replace(self.report, name=log.new_report().name)
        log.add(report)
        complain(report, self.settings)
        return compiled


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


def complain(report: Report, settings: Options) -> None:
    """One warning for what was not rewritten, with reasons and source lines; with ``strict``, an error."""
    refused = [site for site in report.sites if site.decision == "refused"]
    reasons = [report.unfit] if report.unfit else []
    reasons += dict.fromkeys(
        f"{site.source or site.buffer}: {site.kind} at {site.position}: {site.reason}" for site in refused
    )
    if not reasons:
        return
    message = f"kvfix: {report.name} runs as it is, in part or as a whole:\n  " + "\n  ".join(reasons)
    if settings.strict:
        raise KvfixError(message)
    warnings.warn(message, KvfixWarning, stacklevel=2)


capture.install(kvfix, handoff.get_ready)
