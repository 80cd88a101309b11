"""One program of a position: rewritten by the pass alone, run for several positions, compared with eager.

    program(p, *tensors)        eager: what it gives, or its error
    rewritten(p, *tensors)      the same program traced with a symbol for `p`, rewritten, run for each `p` that its guards allow

Tracing through `torch.compile` would cost a second for each program. Here the graph is traced with a symbol that stands for the
position, as Dynamo hands one over, and is traced anew for a position that its guards exclude, as Dynamo would do.

A tensor whose size depends on the position cannot leave a graph, so it is stored in the first places of a larger one.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, free_symbols
from torch.utils._pytree import tree_leaves

import fxpass
from fxpass.torch_internals import install as capture

logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # it logs errors, which are results here

Function = Callable[..., Any]
OUTCOMES = ("equal", "undefined", "untraced", "refused", "wrong", "crash")
"""From best to worst. Undefined: eager gives memory that nothing was written to. Untraced: the program cannot be traced without
the pass either, `torch.compile` breaks the graph there."""


@dataclasses.dataclass
class Outcome:
    """What came of one program: the worst of all positions, with the reasons (or errors) counted."""

    kind: str = "equal"
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, kind: str, reason: str = "") -> None:
        if OUTCOMES.index(kind) > OUTCOMES.index(self.kind):
            self.kind, self.reasons = kind, Counter()
        if kind == self.kind and reason:
            self.reasons[reason] += 1


@dataclasses.dataclass
class _Traced:
    """A rewritten program, its guards, and for each result the sizes that were padded (None where they were not)."""

    gm: fx.GraphModule
    guards: list[Any]
    symbol: Any
    report: fxpass.Report

    def fits(self, position: int) -> bool:
        return all(bool(guard.subs({self.symbol: position})) for guard in self.guards)


def check(program: Function, tensors: Sequence[Tensor], positions: Sequence[int], seed: int = 0) -> Outcome:
    """Compare ``program(p, *tensors)`` with its rewritten form for all ``positions``; tensors keep what they hold.

    The first of the positions that eager has no error for is traced first, most should fit that trace.
    """
    outcome, traces = Outcome(), []
    expected = {p: _run(program, p, tensors, seed) for p in positions}
    for p in sorted(positions, key=lambda p: isinstance(expected[p], Exception)):
        traced = next((t for t in traces if t.fits(p)), None)
        if traced is None:
            try:
                traced = _trace(program, tensors, p, max(positions))
            except Exception as error:  # noqa: BLE001  (whatever it is, it is counted)
                if not isinstance(expected[p], Exception):
                    kind = "crash" if _traces(program, tensors, p) else "untraced"
                    outcome.add(kind, f"{type(error).__name__}: {error}".split("\n")[0][:200])
                continue
            traces.append(traced)
        kind, reason = _compare(traced, _run(traced.gm, p, tensors, seed), expected[p])
        if kind == "wrong" and _is_undefined(program, p, tensors, seed):
            kind = "undefined"
        if kind in ("wrong", "crash") and not _traces(program, tensors, p, expected[p], seed):
            kind = "untraced"
        outcome.add(kind, f"at {p}: {reason}" if kind in ("wrong", "crash") else reason)
    return outcome


def _compare(traced: _Traced, found: Any, expected: Any) -> tuple[str, str]:
    """What a rewritten program has come to, and why."""
    if traced.report.unfit:
        return "crash", f"unfit: {traced.report.unfit}"
    if isinstance(expected, Exception):
        raised = f"eager raises {type(expected).__name__}: {str(expected)[:150]}"
        return ("equal", "") if isinstance(found, Exception) else ("wrong", raised)
    if isinstance(found, Exception):
        return "crash", f"{type(found).__name__}: {str(found)[:200]}"
    if difference := _difference(found, expected):
        return "wrong", difference
    refused = [site.reason for site in traced.report.sites if site.decision == "refused"]
    return ("refused", refused[0]) if refused else ("equal", "")  # the other reasons may follow from the first


def _is_undefined(program: Function, p: int, tensors: Sequence[Tensor], seed: int) -> bool:
    """Whether eager itself depends on what fresh memory holds: in a deterministic mode PyTorch fills it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        filled = _run(program, p, tensors, seed)
    finally:
        torch.use_deterministic_algorithms(False)
    plain = _run(program, p, tensors, seed)
    return not isinstance(plain, Exception) and not isinstance(filled, Exception) and bool(_difference(filled, plain))


def _run(program: Function, p: int, tensors: Sequence[Tensor], seed: int) -> Any:
    """The results and the tensors afterwards, or the error."""
    own = [_copy(t) for t in tensors]
    torch.manual_seed(seed)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [*tree_leaves(program(p, *own)), *own]
    except Exception as error:  # noqa: BLE001  (an error is a result)
        return error


def _copy(tensor: Tensor) -> Tensor:
    """``tensor`` in memory of its own, with the same strides."""
    if tensor.layout is not torch.strided:
        return tensor.clone()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _trace(program: Function, tensors: Sequence[Tensor], hint: int, most: int) -> _Traced:
    gm, inputs, symbol, env = _captured(program, tensors, hint, most)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rewritten = fxpass.rewrite(gm, inputs)
    return _Traced(rewritten.graph_module, [guard.expr for guard in env.guards], symbol, rewritten.report)


def _traces(program: Function, tensors: Sequence[Tensor], p: int, expected: Any = None, seed: int = 0) -> bool:
    """Whether the program can be traced without the pass, and gives what is ``expected`` of it."""
    gm, inputs, *_ = _captured(program, tensors, p, p)
    try:
        normal, _ = capture.normal_form(gm, inputs)
    except Exception:  # noqa: BLE001  (whatever it is, it does not come from the pass)
        return False
    found = None if expected is None else _run(normal, p, tensors, seed)
    if isinstance(expected, Exception) or expected is None:
        return expected is None or isinstance(found, Exception)
    return not isinstance(found, Exception) and not _difference(found, expected)


def _captured(
    program: Function, tensors: Sequence[Tensor], hint: int, most: int
) -> tuple[fx.GraphModule, list[Any], Any, ShapeEnv]:
    """A graph that calls ``program``, the fake values of its inputs, the symbol of the position, and what knows the guards."""
    env = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)  # as Dynamo has it
    source = ConstantSource("p")
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
    symbol = env.create_symbol(hint, source, DimDynamic.DYNAMIC, positive=None, do_not_specialize_zero_one=True)
    fakes = [mode.from_tensor(t, static_shapes=True) for t in tensors]
    inputs = [env.create_symintnode(symbol, hint=hint, source=source), *fakes]
    graph = fx.Graph()
    placeholders = [graph.placeholder(f"in_{i}") for i in range(len(inputs))]
    for node, value in zip(placeholders, inputs, strict=True):
        node.meta["val"] = value

    def stored(p: Any, *own: Any) -> Any:
        return [_stored(r, most) for r in tree_leaves(program(p, *own))]

    graph.output(graph.call_function(stored, tuple(placeholders)))
    return fx.GraphModule({}, graph), inputs, symbol, env


def _stored(result: Any, most: int) -> Any:
    """``result`` in the first places of a tensor of fixed size: the largest that it has for a position up to ``most``."""
    if not isinstance(result, Tensor) or result.layout is not torch.strided:
        return result
    moving = {d: s for d, s in enumerate(result.shape) if free_symbols(s)}
    if not moving:
        return result.clone()
    room = [_largest(s, most) if d in moving else s for d, s in enumerate(result.shape)]
    out = torch.zeros(room, dtype=result.dtype, device=result.device)
    part = out
    for dim, size in moving.items():
        part = part.narrow(dim, 0, size)
    part.copy_(result)
    return out


def _largest(size: torch.SymInt, most: int) -> int:
    expression = size.node.expr
    (symbol,) = free_symbols(size)
    return max(int(expression.subs({symbol: p})) for p in range(most + 1))


def _difference(found: Sequence[Any], expected: Sequence[Any]) -> str:
    if len(found) != len(expected):
        return f"{len(found)} results, not {len(expected)}"
    for i, (mine, its) in enumerate(zip(found, expected, strict=True)):
        if isinstance(mine, Tensor) and isinstance(its, Tensor) and mine.layout is torch.strided:
            if mine.dim() != its.dim() or any(m < s for m, s in zip(mine.shape, its.shape, strict=True)):
                return f"result {i} is {tuple(mine.shape)}, not {tuple(its.shape)}"
            mine = mine[tuple(slice(s) for s in its.shape)]
        try:
            torch.testing.assert_close(mine, its, equal_nan=True)
        except AssertionError as error:
            return f"result {i}: " + " ".join(str(error).split())[:200]
    return ""
