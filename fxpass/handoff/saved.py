"""A rewritten graph as plain data, from which another process compiles what this one has compiled.

Kept are the ops, the constants, and what the inputs look like: sizes over symbols, and which of them share memory. All
other values follow by propagation. What a compiler made of the graph is not kept: compilers have caches of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx._graph_pickler import GraphPickler
from torch.fx._graph_pickler import Options as PicklerOptions
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from fxpass.capture.normal_form import faking
from fxpass.options import Options

from .addresses import belongs_to_module
from .assemble import Plan, assemble
from .compilers import compiler, in_pieces
from .kernels import register
from .propagate import propagate
from .repeats import cut
from .split import split


class Unsaved(Exception):
    """The graph cannot be kept for another process; the message says why."""


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor input: sizes, strides and offset are ints or expressions; ``memory`` tells which inputs share theirs."""

    shape: tuple[Any, ...]
    stride: tuple[Any, ...]
    offset: Any
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    memory: int
    nbytes: int | None
    of_module: bool


@dataclasses.dataclass(frozen=True)
class Saved:
    """What `save` keeps of a graph; can be pickled."""

    graph: bytes
    inputs: list[Any]
    hints: dict[Any, int]
    rewritten: bool
    capacity: Set[Any]
    carried: list[str] | None
    settings: Options

    def compile(self) -> Callable[..., tuple[Any, ...]]:
        """The graph's function, as the process that saved it had it. Inductor is asked on the first call."""
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        register()
        loaded: Any = GraphPickler.loads(self.graph, mode)
        gm = fx.GraphModule(loaded, loaded.graph)
        symbols = {s: _symbol(mode, s, hint) for s, hint in self.hints.items()}
        inputs = _inputs(self.inputs, mode, symbols, self.hints)
        for node, kept in zip(gm.graph.find_nodes(op="placeholder"), self.inputs):
            if isinstance(kept, _Tensor) and kept.of_module:
                node.meta["tensor_dict"] = {"_dynamo_static_input_type": "guarded"}
        propagate(gm, inputs)
        if not self.rewritten:
            return _on_first_call(lambda: self._untouched(gm, inputs, mode))
        placeholders = {n.name: n for n in gm.graph.find_nodes(op="placeholder")}
        carried = None if self.carried is None else [placeholders[name] for name in self.carried]
        capacity = {symbols[s].node.expr for s in self.capacity}
        return assemble(Plan(gm, split(gm, capacity), capacity, carried), self.settings)

    def _untouched(self, gm: fx.GraphModule, inputs: Sequence[Any], mode: FakeTensorMode) -> Callable[..., Any]:
        patches = {**self.settings.inductor, "triton.cudagraphs": False}
        calls = cut(gm) if self.settings.compiler == "inductor" else []
        if calls:
            return in_pieces(gm, calls, patches)
        with tracing(TracingContext(mode)):
            return compiler(self.settings.compiler, patches)(gm, inputs, None)


def save(plan: Plan, settings: Options) -> Saved:
    """``plan``, not yet assembled.

    Raises:
        Unsaved: an input, an operator or a constant is of a kind that is not kept.
    """
    gm = plan.gm
    memories: dict[int, int] = {}
    inputs = [_describe(n, memories) for n in gm.graph.find_nodes(op="placeholder")]
    kept = PicklerOptions(ops_filter=None, node_metadata_key_filter=lambda key: False)
    plain = fx.GraphModule({n.target: getattr(gm, str(n.target)) for n in gm.graph.find_nodes(op="get_attr")}, gm.graph)
    try:
        graph = GraphPickler.dumps(plain, kept)
    except Exception as error:  # whatever the pickler meets, from operators of other packages to local classes
        raise Unsaved(f"{type(error).__name__}: {error}") from error
    carried = None if plan.carried is None else [n.name for n in plan.carried]
    hints = _hints(gm)
    capacity = plan.capacity & hints.keys()  # the others have been found equal to one of these, and are not met again
    return Saved(graph, inputs, hints, bool(plan.parts), capacity, carried, settings)


def _describe(node: fx.Node, memories: dict[int, int]) -> Any:
    value = node.meta["val"]
    if isinstance(value, torch.SymInt):
        return value.node.expr
    if not isinstance(value, torch.Tensor):
        return value
    storage = value.untyped_storage()
    nbytes = storage.nbytes()
    shared = storage._cdata in memories
    if not isinstance(nbytes, int):
        if shared or value.storage_offset() != 0:
            raise Unsaved(f"{node.name} is a part of memory whose size may change")
        nbytes = None
    if value.layout is not torch.strided or type(value).__name__ != "FakeTensor":
        raise Unsaved(f"{node.name} is no plain tensor")
    return _Tensor(
        tuple(map(_expr, value.shape)),
        tuple(map(_expr, value.stride())),
        _expr(value.storage_offset()),
        value.dtype,
        value.device,
        value.requires_grad,
        memories.setdefault(storage._cdata, len(memories)),
        nbytes,
        belongs_to_module(node),
    )


def _expr(number: Any) -> Any:
    return number.node.expr if isinstance(number, torch.SymInt) else number


def _hints(gm: fx.GraphModule) -> dict[Any, int]:
    """The values that the symbols of ``gm``'s inputs had."""
    values = [n.meta["val"] for n in gm.graph.find_nodes(op="placeholder")]
    numbers = [v for v in values if isinstance(v, torch.SymInt)]
    for v in values:
        if isinstance(v, torch.Tensor):
            numbers += [s for s in (*v.shape, *v.stride()) if isinstance(s, torch.SymInt)]
    hints: dict[Any, int] = {}
    for number in numbers:
        for symbol in sorted(number.node.expr.free_symbols - hints.keys(), key=str):
            hint = SymNode(symbol, number.node.shape_env, int, None).hint
            if hint is None:
                raise Unsaved(f"{symbol} is known on the device only")
            hints[symbol] = int(hint)
    return hints


def _symbol(mode: FakeTensorMode, symbol: Any, hint: int) -> Any:
    env, source = mode.shape_env, ConstantSource(str(symbol))
    assert env is not None
    made = env.create_unspecified_symbol(hint, source=source, dynamic_dim=DimDynamic.DYNAMIC)
    return env.create_symintnode(made, hint=hint, source=source)


def _inputs(kept: Sequence[Any], mode: FakeTensorMode, symbols: dict[Any, Any], hints: dict[Any, int]) -> list[Any]:
    env = mode.shape_env
    assert env is not None
    renamed = {old: new.node.expr for old, new in symbols.items()}

    def number(expr: Any) -> Any:
        if not hasattr(expr, "free_symbols"):
            return expr
        if not expr.free_symbols:
            return int(expr)
        return env.create_symintnode(expr.xreplace(renamed), hint=int(expr.xreplace(hints)))

    memories: dict[int, torch.UntypedStorage] = {}
    values = []
    with faking(mode):
        for k in kept:
            if not isinstance(k, _Tensor):
                values.append(number(k))
                continue
            sizes, strides = [number(s) for s in k.shape], [number(s) for s in k.stride]
            if k.nbytes is None:
                value = torch.empty_strided(sizes, strides, dtype=k.dtype, device=k.device)
            else:
                if k.memory not in memories:
                    memories[k.memory] = torch.empty(k.nbytes, dtype=torch.uint8, device=k.device).untyped_storage()
                empty = torch.empty(0, dtype=k.dtype, device=k.device)
                value = empty.set_(memories[k.memory], number(k.offset), sizes, strides)
            values.append(value.requires_grad_(k.requires_grad))
    return values


def _on_first_call(make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    made: list[Callable[..., Any]] = []

    def run(*args: Any) -> Any:
        if not made:
            made.append(make())
        return made[0](*args)

    return run
