"""The pass by itself, `rewrite`, and the report of a call, `explain`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import fx

from fxpass.analysis.capacities import sizes_sliced
from fxpass.analysis.positions import Origin
from fxpass.analysis.sites import SliceSite
from fxpass.graph.attributes import lift, restore
from fxpass.graph.decompose import decompose
from fxpass.graph.extract import duplicate
from fxpass.graph.normal_form import NormalForm, fake_inputs, normal_form
from fxpass.graph.postconditions import Broken, check_graph, signature
from fxpass.graph.propagate import op_records, propagate
from fxpass.graph.unfit import Unfit
from fxpass.options import Options
from fxpass.report import Report, store
from fxpass.report.drawing import Drawings, drawn, later
from fxpass.report.kept_nodes import kept, without_tensors
from fxpass.report.lazy import Lazy
from fxpass.report.names import user_names
from fxpass.report.sites import sites_of
from fxpass.report.symbols import kinds_of
from fxpass.rewriting import (
    Cuts,
    Grown,
    Rewritten,
    Windows,
    copy_fixed_rows,
    floats_as_tensors,
    lay_out_results,
    mask_overwritten_rows,
    rewrite_graph,
)
from fxpass.torch_internals.dynamo.inputs.numbers import NumberInputs
from fxpass.torch_internals.dynamo.inputs.origins import name_of, origins


class RewriteResult(NamedTuple):
    """What `rewrite` returns: the rewritten module (aten ops, same inputs and outputs) and the report."""

    graph_module: fx.GraphModule
    report: Report


def rewrite(gm: fx.GraphModule, example_inputs: Sequence[Any], *, strict: bool = False) -> RewriteResult:
    """Rewrite position-driven slices of caches in ``gm`` into full reads, masks and indexed writes.

    Args:
        gm: a graph from Dynamo, from ``torch.export`` (``ep.module()`` or ``ep.graph_module``), or from ``make_fx``. Not
            mutated. In place of a graph that does not fit, the result holds a copy of it and ``report.unfit`` says why.
        example_inputs: one value for each placeholder, in order: tensors (only their metadata is used where the graph's
            placeholders do not carry their own), ints.
        strict: whether to raise where something is refused.

    Returns:
        The rewritten module and its report. The module takes the inputs of ``gm``, and gives outputs of the same number,
        shapes, dtypes and devices.

    Raises:
        KvfixError: ``strict`` is set and something was refused.
    """
    report = Report("graph")
    cause = None
    try:
        lifted, inputs, names = lift(gm, fake_inputs(gm, example_inputs))
        module, _ = rewrite_normal_form(to_normal_form(lifted, inputs, report), inputs, report)
        module = restore(module, gm, names)
    except (Unfit, Broken) as failure:
        report.unfit, cause = str(failure), failure
        module = copy.deepcopy(gm)
    if strict:
        store.complain(report, Options(strict=True), cause)
    return RewriteResult(module, report)


def to_normal_form(gm: fx.GraphModule, inputs: Sequence[Any], report: Report) -> NormalForm:
    """The `normal_form` of ``gm``. A size that guards fix is an int in all that follows from it. ``report`` tells how long it
    took."""
    with store.timed(report, "normal form"):
        form = normal_form(gm, inputs)
        propagate(form.gm, inputs, op_records(form.gm, without=form.folded))
        return form


def rewrite_normal_form(
    form: NormalForm,
    inputs: Sequence[Any],
    report: Report,
    numbers: NumberInputs | None = None,
    growing: Callable[[fx.GraphModule], Grown | None] = lambda normal: None,
    before_edits: Callable[[fx.GraphModule, Iterable[SliceSite]], None] = lambda gm, sites: None,
    windows: Windows | None = None,
) -> tuple[fx.GraphModule, Rewritten]:
    """A copy of the graph of ``form``, rewritten and checked; ``report`` is filled in.

    ``numbers`` are those of a graph from Dynamo. ``growing`` may put buffers in the place of what grows in the normal form,
    before all else. ``before_edits`` and ``windows`` are those of `rewrite_graph`.
    """
    normal = duplicate(form.gm)
    came = kept(normal.graph)
    report.drawings.before = report.drawings.after = Lazy(lambda: drawn(without_tensors(came)))
    grown = growing(normal)
    positions = _positions(normal, numbers)
    cuts = _cuts(normal, positions, numbers, grown)
    before, ops = signature(normal), op_records(normal)
    with store.timed(report, "rewrite"):
        rewritten = _edited(normal, positions, numbers, grown, before_edits, cuts, windows)
    _describe(report, normal, rewritten, numbers, grown, windows)
    inputs = [*inputs, *(n.meta["val"] for n in normal.graph.find_nodes(op="placeholder")[len(inputs) :])]
    with store.timed(report, "propagate"):
        propagate(normal, inputs, ops)
        mask_overwritten_rows(normal.graph, rewritten.marks)
        ops = op_records(normal)
        if any(d.rewritten for d in rewritten.decisions) and copy_fixed_rows(normal.graph, rewritten.kinds.bound):
            propagate(normal, inputs, ops)
    cut = {place: [dim for dim, *_ in cuts] for place, cuts in rewritten.around.cuts.items()}
    lay_out_results(normal.graph, before[0], cut)
    check_graph(normal, before, may_read=report.refused > 0, cut=cut)
    report.drawings = Drawings(later(without_tensors(came)), later(without_tensors(kept(normal.graph))))
    return normal, rewritten


def _positions(normal: fx.GraphModule, numbers: NumberInputs | None) -> dict[fx.Node, Origin]:
    """The position inputs of ``normal``, apart from the lengths of what has grown."""
    if numbers is None:
        return origins(normal)
    numbers.settle(normal.graph)
    return origins(normal, numbers.steady_ints, numbers.growing[0])


def _cuts(
    normal: fx.GraphModule, positions: Iterable[fx.Node], numbers: NumberInputs | None, grown: Grown | None
) -> Cuts | None:
    """The results that may be cut outside of the graph ``normal``, which must come from Dynamo."""
    if grown is not None:
        return Cuts(grown.given, has_buffers=True, viewed=grown.around.viewed)
    return None if numbers is None else Cuts.beside_views(normal.graph, positions)


def _edited(
    normal: fx.GraphModule,
    positions: dict[fx.Node, Origin],
    numbers: NumberInputs | None,
    grown: Grown | None,
    before_edits: Callable[[fx.GraphModule, Iterable[SliceSite]], None],
    cuts: Cuts | None,
    windows: Windows | None,
) -> Rewritten:
    """Rewrite the graph ``normal``, in which buffers stand in the place of what has ``grown``."""
    if positions:
        floats_as_tensors(normal.graph)
    seen = numbers.seen() if numbers else None
    if grown is not None:
        positions, seen = grown.origins | positions, grown.seen(seen)
    rewritten = rewrite_graph(normal, positions, name_of, decompose, seen, before_edits, cuts, windows)
    if grown is not None:
        rewritten.around = dataclasses.replace(rewritten.around, axes=grown.around.axes)
    return rewritten


def _describe(
    report: Report,
    normal: fx.GraphModule,
    rewritten: Rewritten,
    numbers: NumberInputs | None,
    grown: Grown | None,
    windows: Windows | None,
) -> None:
    """Note in ``report`` the symbols of ``normal``, what they are, and what became of each site."""
    lengths, capacities = (grown.lengths, set(grown.capacities)) if grown is not None else (set(), set())
    report.symbols = numbers.table(rewritten.kinds, lengths) if numbers else []
    capacities |= {s for s in sizes_sliced(rewritten.sites) if rewritten.kinds.of_symbol(s) == "variant"}
    own = windows.sizes(normal.graph) if windows is not None else set()
    report.kinds = kinds_of(normal.graph, rewritten.kinds, lengths, capacities, own)
    report.flow = nx.relabel_nodes(rewritten.flow, user_names(rewritten.flow))
    report.sites = sites_of(rewritten)


def explain(fn: Callable[..., Any], *, grad: bool = False, **options: Any) -> Callable[..., Report]:
    """Compile ``fn`` into a function that makes a call, and returns the report of the last graph that has been compiled so far.

    Dynamo takes a number for a constant until it has seen it move, so a decode step has to be called for two positions:

        step = fxpass.explain(model, compiler="eager")
        step(x0, cache)
        report = step(x1, cache)

    Each is a call like any other: caches are written, and positions advance. What the model returns is dropped.

    Args:
        fn: a module or a function, which takes what the returned function takes.
        grad: whether calls are made with gradients enabled.
        options: those of the backend, see `fxpass.options.Options`.

    Raises:
        RuntimeError: an option is wrong (already here), or no call has compiled anything yet.
    """
    compiled = torch.compile(fn, backend="kvfix", options=options or None)
    made: list[Report] = []

    def call(*args: Any, **kwargs: Any) -> Report:
        before = store.reports()[-1:]
        with torch.set_grad_enabled(grad):
            compiled(*args, **kwargs)
        if (latest := store.reports()[-1:]) != before:
            made[:] = latest
        if not made:
            raise RuntimeError("kvfix: the call compiled no graph; torch.compiler.reset() forgets those made before")
        return made[-1]

    return call
