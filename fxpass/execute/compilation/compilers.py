"""What compiles a region: Inductor, AOTAutograd alone, or nothing."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.arithmetic import SUM
from fxpass.errors import warn
from fxpass.execute.partition.repeats import Call, piece_calls
from fxpass.execute.recording.carry import asks_for_graphs
from fxpass.execute.recording.copied_out import CopiedOut
from fxpass.graph.extract import duplicate
from fxpass.graph.normal_form import mode_of
from fxpass.graph.propagate import propagate, value_of
from fxpass.kernels.for_inductor.joined_results import join_results
from fxpass.kernels.launches.limits import MAX_PARTS
from fxpass.kernels.select import compiled_meanwhile
from fxpass.options import OWN_PATCHES, Options, did_you_mean
from fxpass.torch_internals.fakes import TracingContext, tracing
from fxpass.torch_internals.inductor.early import starting_early
from fxpass.torch_internals.inductor.overlap import kernels_later
from fxpass.torch_internals.inductor.parallel import side_by_side

from .kept_copies import keep_copies
from .overwritten import write_apart
from .sequence import Sequenced, may_record, recorded

aten = torch.ops.aten
FEW_OPS, FEW_ELEMENTS = 6, 4096
"""A part with no more ops on tensors than this, and no more elements in each, is not worth its compilation."""

FEW_LAUNCHES = {
    "score_fusion_memory_threshold": 1,  # byte that ops of one size share, to be one kernel
    "combo_kernels": True,
    "combo_kernels_pointwise_only": True,  # sums and loops over ever more chunks share no kernel well
}
"""Inductor config patches for fewer kernels."""

MOST_AGAIN = 200
"""A kernel computes a running sum again, where it reads it, by at most so many ops for an element."""

Compile = Callable[[fx.GraphModule, Sequence[Any], Sequence[int] | None], Callable[..., Any]]
"""``compile(gm, fakes, static)``: a callable for ``gm``. ``static`` lists the inputs with static addresses; None for a
part with symbolic sizes, which is not recorded."""


def compiler(name: str, inductor: Mapping[str, Any]) -> Compile:
    """The compiler called ``name``: ``inductor`` (with these config patches), ``aot_eager`` or ``eager``."""
    if name == "inductor":
        return functools.partial(_inductor, patches=dict(inductor))
    return _aot_eager if name == "aot_eager" else _eager


def get_ready(settings: Options) -> None:
    """See that Inductor knows its settings, and start the processes in which it compiles kernels: they take seconds to start,
    while Dynamo traces.

    Raises:
        RuntimeError: Inductor has no setting of a name in ``settings.inductor``.
    """
    if named := settings.inductor.keys() - OWN_PATCHES:
        _check_names(named)
    if settings.compiler == "inductor" and torch.cuda.is_available():
        from fxpass.torch_internals.inductor.names import maybe_warm_pool

        maybe_warm_pool()


def _check_names(names: Iterable[str]) -> None:
    from fxpass.torch_internals.inductor.names import list_options

    known = list_options()
    for name in sorted(names):
        if name not in known:
            are_several = any(other.startswith(f"{name}.") for other in known)
            hint = f", but several, such as '{name}.NAME'" if are_several else did_you_mean(name, known)
            raise RuntimeError(f"kvfix: Inductor has no setting {name!r}{hint}")


def as_dynamo_gave_it(name: str, inductor: Mapping[str, Any]) -> Callable[[fx.GraphModule, Sequence[Any]], Any]:
    """The same compilers for a graph straight from Dynamo, which brings its own tracing context and input metadata."""
    if name != "inductor":
        return lambda gm, inputs: compiler(name, inductor)(gm, inputs, None)

    from fxpass.torch_internals.inductor.names import compile_fx

    return lambda gm, inputs: compile_fx(gm, list(inputs), config_patches=dict(inductor))


def as_stock(gm: fx.GraphModule, settings: Options) -> Callable[..., Any]:
    """``gm``, a Dynamo graph, for real inputs, as stock `torch.compile` runs it; it is compiled when it is first called."""
    if settings.compiler == "eager":
        return gm.forward
    own = dict(settings.inductor) if settings.compiler == "inductor" else {}
    run: Callable[..., Any] = torch.compile(_traceable(gm), backend=settings.compiler, options=own or None)  # type: ignore
    return CopiedOut(run) if own.get("triton.cudagraphs") else run


_OF_PYTHON = {torch.sym_not: operator.not_, torch.sym_max: max, torch.sym_min: min}


def _traceable(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy of the Dynamo graph ``gm`` that Dynamo traces in one piece: it does not take torch's functions of numbers,
    where these are constants by then, nor a module that makes its code when it is called."""
    made = duplicate(gm)
    for node in made.graph.nodes:
        if node.target in _OF_PYTHON:
            node.target = _OF_PYTHON[node.target]
        elif node.target is SUM and SUM is not None:
            with made.graph.inserting_before(node):
                add = functools.partial(made.graph.call_function, operator.add)
                node.replace_all_uses_with(functools.reduce(lambda a, b: add((a, b)), node.args[0], 0))
            made.graph.erase_node(node)
    made.recompile()
    return made


def _eager(gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None) -> Callable[..., Any]:
    return gm.forward


def _aot_eager(gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None) -> Callable[..., Any]:
    from fxpass.torch_internals.inductor.names import aot_eager

    return aot_eager(gm, list(fakes))


def _inductor(
    gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None, patches: dict[str, Any]
) -> Callable[..., Any]:
    if static is None:
        return op_by_op(gm) if is_tiny(gm) else _whole(gm, fakes, None, {**patches, "triton.cudagraphs": False})
    propagate(gm, fakes)
    record = asks_for_graphs(patches, fakes)
    own = record and may_record(gm)
    if own:
        join_results(gm.graph)
    calls = piece_calls(gm) if own == record else []
    with compiled_meanwhile(gm), among_kernels(record) as added:
        patches = {**added, **patches}
        if record and not own:  # Inductor says why it does not record it
            return _whole(gm, fakes, static, patches)
        patches["triton.cudagraphs"] = False
        run = in_pieces(gm, calls, patches) if calls else _whole(gm, fakes, None, patches)
    return recorded(run, gm, static) if own else run


def op_by_op(gm: fx.GraphModule) -> Callable[..., Any]:
    """``gm`` as it is, but for numbers that are handed over: `copy_(buffer, full(size, n))` becomes `fill_(buffer, n)`."""
    for copy in gm.graph.find_nodes(op="call_function", target=aten.copy_.default):
        target, source = copy.args[:2]
        if isinstance(source, fx.Node) and source.target is aten.full.default and _dtype(source) == _dtype(target):
            copy.target, copy.args = aten.fill_.Scalar, (target, source.args[1])
            if not source.users:
                gm.graph.erase_node(source)
    gm.recompile()
    return gm.forward


def _dtype(node: fx.Node) -> torch.dtype:
    return node.meta["val"].dtype  # type: ignore[no-any-return]


def is_tiny(gm: fx.GraphModule) -> bool:
    """Whether ``gm`` is a few ops that give small tensors of fixed sizes.

    Calling them one by one takes less time than the wrappers around a function of Inductor's.
    """
    made = [n.meta.get("val") for n in gm.graph.nodes if n.op == "call_function"]
    tensors = [v for v in made if not isinstance(v, (torch.SymInt, torch.SymBool, torch.SymFloat, int, float, bool))]
    return len(tensors) <= FEW_OPS and all(map(_is_small, tensors))


def _is_small(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return False
    return value.numel() <= FEW_ELEMENTS


@contextlib.contextmanager
def among_kernels(record: bool) -> Iterator[dict[str, Any]]:
    """A block in which what Inductor compiles, with these config patches, goes well with kernels of our own in a recording.

    The parts of a sum (`kernels.products.few_rows`) are added where they are used, however many there are. A kernel takes so
    little time that its launch counts: ops of one size are one kernel if they share anything.
    """
    if not record:
        yield {}
        return
    with starting_early() as early:
        yield {**early, **FEW_LAUNCHES, "unroll_reductions_threshold": MAX_PARTS + 1}


def in_pieces(gm: fx.GraphModule, calls: Sequence[Call], patches: dict[str, Any]) -> Callable[..., Any]:
    """``gm`` as the sequence of ``calls``, each distinct piece compiled once, the largest first: its kernels take longest."""
    pieces = {id(call.piece): call.piece for call in calls if call.piece is not None}
    compiled: dict[int, Callable[..., Any]] = {}
    with kernels_later() as kernels:
        for piece in sorted(pieces.values(), key=lambda p: -len(p.gm.graph.nodes)):
            fakes = [value_of(gm, n) for n in piece.examples]
            with tracing(TracingContext(mode_of(fakes))):
                compiled[id(piece)] = _whole(piece.gm, fakes, None, {**patches, **_for_sums(piece.gm)})
    return kernels.before(Sequenced(gm, calls, compiled))


def _for_sums(gm: fx.GraphModule) -> dict[str, Any]:
    """Inductor config patches for running sums in ``gm`` (`kernels.for_inductor.long_rows`): they are computed again by
    each kernel that reads them, from what the chunks hold. To store them would take one more kernel."""
    sums = gm.graph.find_nodes(op="call_function", target=aten.cumsum.default)
    return {"realize_opcount_threshold": MOST_AGAIN} if sums else {}


@side_by_side()
def _whole(
    gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None, patches: dict[str, Any]
) -> Callable[..., Any]:
    from fxpass.torch_internals.inductor.names import compile_fx, compile_fx_inner

    write_apart(gm)
    keep_copies(gm)
    if static is None:
        return compile_fx(gm, list(fakes), config_patches=patches)

    lifted = len({n.target for n in gm.graph.nodes if n.op == "get_attr"})  # constants, which AOTAutograd puts first

    def inner_compile(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        if len(inputs) == lifted + len(fakes):
            kwargs["static_input_idxs"] = [*range(lifted), *(lifted + i for i in static)]
        elif static:
            warn(reasons.ALIASED)
            kwargs["cudagraphs"] = False
        return compile_fx_inner(module, inputs, **kwargs)

    return compile_fx(gm, list(fakes), inner_compile=inner_compile, config_patches=patches)
