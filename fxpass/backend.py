"""``torch.compile(model, backend="kvfix")``: the pipeline, top to bottom.

capture    Dynamo, which has been taught to guard on positions, hands over a graph. It is brought to its normal form.
analysis   It is decided which slices depend on a position, and which ops would see what these cut off.
rewrite    Slices become full reads with masks, and indexed writes.
check      The rewritten graph must meet post-conditions.
hand-off   The graph is cut into a dynamic prologue, a static core and a dynamic epilogue. Each is compiled by itself.
verify     Where that is asked for, the first calls are compared with the graph as Dynamo gave it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.analysis.capacities import capacities, chunks
from fxpass.analysis.kinds import Kinds
from fxpass.api import rewrite_normal_form, to_normal_form
from fxpass.execute.buffers.growth import Growth
from fxpass.execute.buffers.windows import through_windows
from fxpass.execute.calls.assemble import Plan, assemble
from fxpass.execute.calls.untouched import untouched
from fxpass.execute.compilation.compilers import as_stock, get_ready
from fxpass.execute.partition.split import counts_along
from fxpass.execute.plans.buffer_plans import with_buffers
from fxpass.execute.plans.cores import cut, in_cores, note_work
from fxpass.execute.plans.handed_slices import watching_slices
from fxpass.execute.precompile.precompiled import put_in_cache
from fxpass.execute.recording.carry import carry_indices, is_recorded
from fxpass.graph.normal_form import NormalForm, fake_inputs, mode_of
from fxpass.graph.numbers import symbols
from fxpass.graph.postconditions import Broken
from fxpass.graph.unfit import Unfit
from fxpass.graph.values import values_of
from fxpass.index_tensors.advance import Advance
from fxpass.kernels.select import use_kernels
from fxpass.options import Options, parse
from fxpass.report import Report, store
from fxpass.report.progress import stage
from fxpass.report.sites import predicate_sites
from fxpass.rewriting import Grown, copy_inputs, dense_results, give_numbers
from fxpass.rewriting.outside.around import Around
from fxpass.torch_internals.checkpoints import checkpoint
from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.dynamo.frames.minifier import for_the_minifier
from fxpass.torch_internals.dynamo.graph_breaks.causes import broken_at
from fxpass.torch_internals.dynamo.graph_breaks.resumed_functions import cut_between
from fxpass.torch_internals.dynamo.guards.disjoint_inputs import guard_disjoint
from fxpass.torch_internals.dynamo.inputs.numbers import NumberInputs
from fxpass.torch_internals.dynamo.inputs.pinned_numbers import pinned
from fxpass.torch_internals.dynamo.sizes.dynamism import Restart, expect, generalize
from fxpass.torch_internals.dynamo.sizes.handed_on import foresee, settle
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.inductor.stock import compile_stock
from fxpass.torch_internals.install import install
from fxpass.torch_internals.patches import take_faults
from fxpass.torch_internals.precompile import hooks as precompile
from fxpass.verify import original_of, verified
from fxpass.verify.repro import script_of


def kvfix(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Callable[..., Any]:
    """The backend, as `torch.compile` calls it: a Dynamo graph and its inputs in, a callable out.

    Args:
        gm: the graph, of torch functions and methods.
        example_inputs: a tensor, an int or a SymInt for each of its placeholders. Their shapes, strides and dtypes are those
            that the graph was captured for.
        mode: one of `fxpass.options.MODES`.
        options: by name, see `fxpass.options.Options`.
        name: what the report calls the model.

    Returns:
        A function of such inputs that returns the graph's outputs as a tuple.

    Raises:
        RuntimeError: an unknown option or mode (already at ``torch.compile``).
        KvfixError: with ``strict``, where something could not be rewritten; with ``verify``, from a call that differs.
    """
    given = parse(options, mode)
    settings = given.on(example_inputs)
    if not holds(Feature.NEEDED) or settings.compiler == "inductor" and not holds(Feature.INDUCTOR):
        return compile_stock(gm, example_inputs)
    report, original = store.new_report(name), original_of(gm, settings)
    report.faults, report.script = take_faults(), script_of(gm, example_inputs, given, report)
    if broken := broken_at(gm):
        report.ended = reasons.BREAK.text(why=broken[0], where=broken[1])
    advance, numbers, plan, compiled, cause = Advance(), None, None, None, None
    as_it_came = functools.partial(as_stock, gm, settings)
    failed = functools.partial(store.failed, report, settings)
    try:
        advance, numbers = Advance.of(gm), NumberInputs(gm)
        guard_disjoint(gm)
        plan, compiled = handed_off(gm, example_inputs, settings, report, numbers, as_it_came, failed)
    except Restart:
        raise
    except Exception as error:  # a fault of ours must not cost the user the call: the graph runs as it is
        plan, cause = None, error
        store.unfit(report, error, expected=isinstance(error, (Unfit, Broken)))
    note_losses(gm, plan, numbers, report)
    store.add(report)
    store.complain(report, settings, cause)
    if compiled is None:
        with stage(f"compiling {report.name}"):
            compiled = untouched(gm, example_inputs, plan and plan.gm, settings, as_it_came, failed)
        compiled = watching_slices(compiled, plan and plan.gm, functools.partial(store.left_outside, report, settings))
    if precompile.is_caching(gm):
        put_in_cache(gm, given, plan, settings, report, advance)
    watched = numbers.watching(compiled) if numbers else compiled
    return for_the_minifier(verified(advance.after(watched), original, plan, report, settings), gm)


def note_losses(gm: fx.GraphModule, plan: Plan | None, numbers: NumberInputs | None, report: Report) -> None:
    """Note in ``report`` the numbers that are constants of ``gm`` although they move, and what was cut out of a cache before a
    graph break."""
    report.pinned = [reasons.PINNED.text(where=place and f" at {place}", guard=guard) for guard, place in pinned()]
    if numbers is None:
        return
    joins = bool(report.ended and plan and any(axis.rows for axis in plan.growth.axes))
    between = cut_between(gm, numbers.growing[1], report.loses_slices, joins, report.works_on_growth)
    report.outside += [reasons.CUT_BETWEEN.text(source=source, what=what) for source, what in between]


def handed_off(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    settings: Options,
    report: Report,
    numbers: NumberInputs,
    as_it_came: Callable[[], Callable[..., Any]],
    failed: Callable[[Exception], None],
) -> tuple[Plan | None, Callable[..., Any] | None]:
    """The plan for ``gm``, and the function that is compiled from it. The plan is None where the rewrite is switched off, and
    the function is None where nothing is rewritten.

    The function compiles its parts when it runs. If that fails, ``failed`` is called with the error, and the function that
    ``as_it_came`` makes runs instead.
    """
    if not settings.rewrite:
        store.note(report, reasons.OFF.text())
        return None, None
    plan, kinds = prepare(gm, example_inputs, settings, report, numbers)
    if not plan.parts:
        return plan, None

    def otherwise(error: Exception) -> Callable[..., Any]:
        failed(error)
        return as_it_came()

    note = functools.partial(store.note, report)
    made = functools.partial(assemble, settings=settings, instead=as_it_came, failed=failed, note=note)
    complain = functools.partial(store.complain, report, settings)
    return plan, in_cores(plan, kinds, numbers, report, made, otherwise, complain)


def prepare(
    gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Options, report: Report, numbers: NumberInputs | None = None
) -> tuple[Plan, Kinds]:
    """The graph rewritten and cut, and the kinds of its symbols.

    The plan has no parts where there is nothing to rewrite and no number to keep out of the core.
    """
    inputs = fake_inputs(gm, example_inputs)
    form = to_normal_form(gm, inputs, report)
    foresee(form.gm)
    make = functools.partial(planned, gm, inputs, settings, report, numbers)
    plan, kinds = with_buffers(make, form, inputs, numbers, settings, report)
    given = plan.gm.graph.find_nodes(op="placeholder")
    grown = [(given[one.place], one.dim) for one in plan.growth.axes if one.rows]
    settle(in_vain=bool(report.unbuffered) and not plan.growth.axes, grown=grown)
    return plan, kinds


def planned(
    gm: fx.GraphModule,
    inputs: Sequence[Any],
    settings: Options,
    report: Report,
    numbers: NumberInputs | None,
    form: NormalForm,
    growing: Callable[[fx.GraphModule], Grown | None] = lambda normal: None,
) -> tuple[Plan, Kinds]:
    """What `prepare` gives, for the normal ``form`` of ``gm`` and with buffers for what ``growing`` finds in it.

    Where no site is rewritten, the plan is for ``form`` as it came, without a guard more.
    """
    report.parts, report.outside = [], []  # a plan before this one may have come to nothing
    give_up = checkpoint(mode_of(inputs).shape_env)
    rewrite = functools.partial(rewrite_normal_form, inputs=inputs, report=report, numbers=numbers, growing=growing,
                                before_edits=generalize)  # fmt: skip
    recorded = is_recorded(settings, inputs)
    normal, rewritten = rewrite(form) if recorded else through_windows(rewrite, form, inputs, report)
    report.sites[:0] = predicate_sites(gm)
    kinds = rewritten.kinds
    carried, around, bound = None, rewritten.around, kinds.bound
    is_step = not any(one.rows for one in around.axes) and any(s.kind == "position" for s in report.symbols)
    if not any(d.rewritten for d in rewritten.decisions):
        give_up()
        has_buffers = around.axes and rewritten.decisions  # without a site, nothing depends on what grows
        normal, around = form.gm, around if has_buffers else Around()
        expect(gm, normal)
        if around.axes or not counts_along(normal, kinds.bound):
            if is_step:
                note_work(normal.graph, kinds, report)
            return Plan(normal, growth=Growth(around)), kinds
    if recorded:
        if settings.kernels:
            use_kernels(normal, rewritten.marks)
        carried = carry_indices(normal)
    if around.axes:
        if carried is not None:
            around = copy_inputs(normal, dense_results(normal, around), carried)
        around = give_numbers(normal, around)
    bound &= {s for n in normal.graph.nodes if n.users for v in values_of(n) for s in symbols(v)}
    at_once, added = carried is not None and settings.kernels, normal.graph.find_nodes(op="placeholder")[len(inputs) :]
    growth = Growth(around, added, gives_up=not is_step, at_once=at_once)
    sizes = bound & (capacities(normal.graph, rewritten.sites) | growth.capacities | growth.window_sizes.keys())
    of_rows = chunks(normal.graph, rewritten.sites) if carried is None else set()  # kernels of our own are made for a number
    rows = bound & of_rows - sizes
    return cut(Plan(normal, bound=bound, carried=carried, growth=growth, capacities=sizes, chunks=rows), report), kinds


install(kvfix, get_ready, store.reset, store.left_to_eager)
