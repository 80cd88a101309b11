"""The parts of a graph, each compiled for itself, as one function of the graph's inputs.

A call is a sequence of steps (`steps`). The parts run in order. A part that is recorded as a CUDA graph has more steps around
it: it reads buffers that other parts write (`handover`), its results are copied out of its memory (`packing`, `results`), and
index tensors are written back (`carry`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from torch import fx

from fxpass.execute.buffers.growth import Growth
from fxpass.execute.compilation.compilers import compiler
from fxpass.execute.compilation.regions import Region
from fxpass.execute.partition.split import Part
from fxpass.execute.recording.costs import recording_costs
from fxpass.execute.recording.handover import Buffers, hand_over
from fxpass.execute.recording.packing import Pack, pack
from fxpass.execute.recording.results import recorded_results, view_maker, views_of_inputs
from fxpass.graph import aliases
from fxpass.graph.arguments import values_at
from fxpass.graph.extract import duplicate
from fxpass.options import Options

from .fallback import WithFallback
from .steps import CopyOut, Run, Step, Unpack, Views, WriteBack
from .strides import Strided

_CHECKED = {"size_asserts": False, "alignment_asserts": False}
"""Checks that Inductor's code need not make on every call, since Dynamo's guards and `regions.Region` make them."""


@dataclasses.dataclass
class Plan:
    """A graph in normal form, and how it is handed off.

    parts: what the graph was cut into. Empty where nothing was rewritten: the graph is then compiled as it came.
    bound: the symbols for each value of which the static part is compiled, see `analysis.kinds`.
    carried: where the static part is recorded, the inputs whose new contents are the graph's last outputs
        (`recording.carry_indices`), to be written back and not returned. None where it is not recorded.
    growth: the buffers of what grows, and windows. They are the last inputs of ``gm``, which no caller gives.
    capacities: those of ``bound`` that are capacities of caches, or of these buffers, or sizes of windows, see `regions`.
    chunks: those of ``bound`` that are numbers of rows which a call writes, and symbols in the code of the static part as well.
    """

    gm: fx.GraphModule
    parts: Sequence[Part] = ()
    bound: Set[Any] = frozenset()
    carried: Sequence[fx.Node] | None = None
    growth: Growth = dataclasses.field(default_factory=Growth)
    capacities: Set[Any] = frozenset()
    chunks: Set[Any] = frozenset()


def assemble(
    plan: Plan,
    settings: Options,
    instead: Callable[[], Callable[..., Any]] | None = None,
    failed: Callable[[Exception], None] = lambda error: None,
    note: Callable[[str], None] = lambda text: None,
) -> Callable[..., tuple[Any, ...]]:
    """A function of the graph's inputs that runs the parts of ``plan`` one after the other.

    Args:
        plan: stays as it is. It can be assembled again, or serialized, at any time.
        settings: the options.
        instead: makes the function that runs where a part fails when it first runs, see `WithFallback`.
        failed: is called with the error of such a part.
        note: is called with each reason that a recording costs something in every step.

    Returns:
        A function that returns the graph's outputs as a tuple.
    """
    gm, parts = plan.gm, [_copied(part) for part in plan.parts]
    recorded, carried, growth = plan.carried is not None, plan.carried or [], plan.growth
    compile = compiler(settings.compiler, {**_CHECKED, **settings.inductor})
    inputs = gm.graph.find_nodes(op="placeholder")
    (results,) = gm.graph.output_node().args
    returned, new = results[: len(results) - len(carried)], results[len(results) - len(carried) :]  # type: ignore
    buffers = hand_over(gm, parts) if recorded else []
    groups = recorded_results(gm, parts, returned) if recorded else []
    for text in recording_costs(groups, carried, plan.bound) if recorded else ():
        note(text)
    packs = pack(parts, groups)
    made = [*inputs, *buffers, *(n for part in parts for n in part.outputs), *(n for p in packs for n in p.nodes)]
    places = {node: i for i, node in enumerate(made)}
    first = plan.capacities | plan.chunks if growth.moves_on else frozenset()
    sizes, unshare = plan.capacities | plan.chunks, settings.compiler == "inductor"
    regions = [Region(part, compile, sizes, first, growth.window_sizes, unshare) for part in parts]
    steps = _steps(gm, regions, places, packs, groups, dict(zip(carried, new, strict=True)))
    taken = {n: places[n] for n in inputs}
    views = [(places[n], view_maker(n, taken)) for n in views_of_inputs(gm, returned)] if recorded else []
    steps += [Views(views)] if views else []
    gives = [(places[r], None) if isinstance(r, fx.Node) else (None, r) for r in returned]
    memory = Buffers(buffers)

    def run(*args: Any) -> tuple[Any, ...]:
        values: list[Any] = [*args, *growth.fill(args, all(r.is_open for r in regions)), *memory.tensors()]
        for step in steps:
            step(values)
        results = [constant if place is None else values[place] for place, constant in gives]
        growth.take_out(results)
        return tuple(results)

    if instead is None:
        return run
    given = len(inputs) - growth.around.inputs
    return WithFallback(run, regions, [i for i in aliases.written_places(gm.graph, carried) if i < given], instead, failed)


def _steps(
    gm: fx.GraphModule,
    regions: Sequence[Region],
    places: Mapping[fx.Node, int],
    packs: Sequence[Pack],
    groups: Sequence[Sequence[fx.Node]],
    new: Mapping[fx.Node, fx.Node],
) -> list[Step]:
    """The steps of a call, for values at ``places``. ``groups`` are the results that leave a recording, ``packs`` those of them
    that leave it together, and ``new`` gives the new contents of each index tensor."""
    packed = {n for p in packs for n in p.nodes}
    copied = [[places[n] for n in group] for group in groups if not packed.issuperset(group)]
    strided = Strided.of(gm)
    steps: list[Step] = [strided] if strided.orders else []
    steps += [Run(region, values_at([places[n] for n in region.part.inputs])) for region in regions]
    steps += [WriteBack(places[index], places[contents]) for index, contents in new.items()]
    steps += [Unpack(p, places[p.packed]) for p in packs]
    return steps + ([CopyOut(copied)] if copied else [])


def _copied(part: Part) -> Part:
    """A copy of ``part``, with a graph and lists of its own, into which what a recording needs is put."""
    gm = duplicate(part.gm, part.name)
    return dataclasses.replace(
        part, gm=gm, inputs=list(part.inputs), outputs=list(part.outputs), addresses=set(part.addresses)
    )
