"""A rewritten graph as plain data, from which another process compiles what this one has compiled.

It keeps the ops, the constants, and what the values look like: sizes over symbols, and which of them share memory. What a
compiler has made of the graph is left out, since compilers have caches of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set
from typing import Any

from torch import fx

from fxpass.execute.buffers.growth import LEAST, Growth
from fxpass.execute.calls.assemble import Plan, assemble
from fxpass.execute.calls.fallback import WithFallback
from fxpass.execute.compilation.compilers import compiler, in_pieces
from fxpass.execute.partition.repeats import piece_calls
from fxpass.execute.partition.split import split
from fxpass.graph import aliases
from fxpass.graph.inputs import belongs_to_module, note_static
from fxpass.kernels.select import register
from fxpass.options import Options
from fxpass.rewriting.outside.around import Around
from fxpass.torch_internals.dynamo.sizes.capacity import Conditions
from fxpass.torch_internals.fakes import FakeTensorMode, TracingContext, tracing
from fxpass.torch_internals.precompile.names import GraphPickler, PicklerOptions
from fxpass.torch_internals.symbols import ShapeEnv

from .described_values import Loader, NotSerializable, describe, symbol_values

CAPACITIES = [1 << n for n in range(LEAST.bit_length() - 1, 24)]
"""The capacities that a graph from the cache may meet."""


@dataclasses.dataclass(frozen=True)
class SerializedGraph:
    """What `serialize` keeps of a graph; can be pickled."""

    graph: bytes
    values: list[Any]
    of_modules: list[bool]
    hints: dict[Any, int]
    rewritten: bool
    bound: Set[Any]
    capacities: Set[Any]
    chunks: Set[Any]
    carried: list[str] | None
    settings: Options
    around: Around
    conditions: Conditions | None

    def compile(self, failed: Callable[[Exception], None] = lambda error: None) -> Callable[..., tuple[Any, ...]]:
        """The graph's function, as the process that saved it had it. Inductor is asked on the first call; should it fail,
        ``failed`` is told, and the graph runs uncompiled, since Dynamo's own is not here."""
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        register()
        loaded: Any = GraphPickler.loads(self.graph, mode)
        gm = fx.GraphModule(loaded, loaded.graph)
        load = Loader(mode, self.hints)
        for node, spec in zip(gm.graph.nodes, self.values, strict=True):
            if node.op != "output":
                node.meta["val"] = load.value(spec)
        inputs = gm.graph.find_nodes(op="placeholder")
        for node, of_module in zip(inputs, self.of_modules, strict=True):
            if of_module:
                note_static(node)
        if not self.rewritten:
            run = _on_first_call(lambda: self._untouched(gm, [n.meta["val"] for n in inputs], mode))
            return WithFallback(run, [], aliases.written_places(gm.graph), lambda: gm.forward, failed)
        by_name = {n.name: n for n in inputs}
        carried = None if self.carried is None else [by_name[name] for name in self.carried]
        every = (self.bound, self.capacities, self.chunks)
        bound, capacities, rows = ({load.renamed[s] for s in known} for known in every)

        def plan() -> Plan:
            buffers = inputs[len(inputs) - self.around.inputs :]
            at_once, least = carried is not None and self.settings.kernels, self.settings.capacity
            growth = Growth(self.around, buffers, self.conditions, gives_up=False, least=least, at_once=at_once)
            return Plan(gm, split(gm, bound), bound, carried, growth, capacities, rows)

        uncompiled = dataclasses.replace(self.settings, compiler="eager")
        return assemble(plan(), self.settings, lambda: assemble(plan(), uncompiled), failed)

    def _untouched(self, gm: fx.GraphModule, inputs: Sequence[Any], mode: FakeTensorMode) -> Callable[..., Any]:
        patches = {**self.settings.inductor, "triton.cudagraphs": False}
        calls = piece_calls(gm) if self.settings.compiler == "inductor" else []
        if calls:
            return in_pieces(gm, calls, patches)
        with tracing(TracingContext(mode)):
            return compiler(self.settings.compiler, patches)(gm, inputs, None)


def serialize(plan: Plan, settings: Options) -> SerializedGraph:
    """``plan`` as plain data.

    Raises:
        NotSerializable: an input, an operator or a constant is of a kind that cannot be described.
    """
    gm = plan.gm
    memories: dict[int, int] = {}
    values = [describe(n.name, n.meta.get("val"), memories) if n.op != "output" else None for n in gm.graph.nodes]
    of_modules = [belongs_to_module(n) for n in gm.graph.find_nodes(op="placeholder")]
    plain = PicklerOptions(ops_filter=None, node_metadata_key_filter=lambda key: False)
    bare = fx.GraphModule({n.target: getattr(gm, str(n.target)) for n in gm.graph.find_nodes(op="get_attr")}, gm.graph)
    try:
        graph = GraphPickler.dumps(bare, plain)
    except Exception as error:  # whatever the pickler meets, from operators of other packages to local classes
        raise NotSerializable(f"{type(error).__name__}: {error}") from error
    carried = None if plan.carried is None else [n.name for n in plan.carried]
    hints = symbol_values(gm)
    bound = plan.bound & hints.keys()  # the others have been found equal to one of these, and are not met again
    conditions = plan.growth.conditions
    if conditions is not None and not all(map(conditions.hold, CAPACITIES)):
        raise NotSerializable("not every capacity of what grows would do")
    rewritten, around = bool(plan.parts), plan.growth.around
    sizes = plan.capacities & bound, plan.chunks & bound
    return SerializedGraph(graph, values, of_modules, hints, rewritten, bound, *sizes, carried, settings, around, conditions)


def _on_first_call(make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    made: list[Callable[..., Any]] = []

    def run(*args: Any) -> Any:
        if not made:
            made.append(make())
        return made[0](*args)

    return run
