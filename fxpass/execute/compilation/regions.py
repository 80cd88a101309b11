"""One part of a graph as a function that is compiled when it is called, for the shapes that it is called with.

The static core is compiled once for each set of input shapes, and without symbols, except for capacities. The capacities of
what the graph joins are symbols in its code from the first compilation on; so are all where caches are read through windows.
Otherwise they are constants in the first compilation; once a capacity changes, the core is compiled a second time, with symbols
that serve all capacities that follow. Where nothing is recorded, the numbers of rows that calls hand in are symbols wherever
capacities are. Recordings hold numbers.

A dynamic part is compiled with symbolic sizes, in a shape environment of its own. What the compiler has assumed about the sizes
is checked on each call; where that does not hold, the part is compiled once more.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import warn
from fxpass.execute.partition.split import Part
from fxpass.graph.arguments import values_at
from fxpass.graph.numbers import to_expr
from fxpass.report.progress import stage
from fxpass.torch_internals import garbage_collection
from fxpass.torch_internals.dynamo.names import compile_lock
from fxpass.torch_internals.dynamo.names import config as dynamo_config
from fxpass.torch_internals.fakes import FakeTensorMode, TracingContext, let_go_of_tensors, tracing
from fxpass.torch_internals.symbols import SYMPY_INTERP, ShapeEnv

from .compilers import Compile
from .open_sizes import Opened, fakes_of, function_of_sizes, is_asked, opened
from .recast_results import beside_recast
from .region_inputs import dynamic_dims, fake_of, shares_memory, symbol_places, unviewed, variant_key, varies
from .unshared_results import with_unshared_results

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _Variant:
    holds: Callable[[Sequence[Any]], bool]
    run: Callable[..., Any]


class Region:
    """``part``, compiled by ``compile``. A call takes the values of ``part.inputs``, and gives those of ``part.outputs``.

    ``attempt(run, args)`` calls ``run(args)``, which compiles the part for these. `WithFallback` puts one of its own there.
    ``is_open`` tells whether sizes may be symbols from the first compilation on, as far as is known.
    """

    def __init__(
        self,
        part: Part,
        compile: Compile,
        sizes: Set[Any] = frozenset(),
        first: Set[Any] = frozenset(),
        windows: Mapping[Any, Sequence[Any]] = {},
        unshare: bool = False,
    ) -> None:
        """``sizes`` are symbols in the code of a static part from its second compilation on; those in ``first``, always. Of
        these, ``windows`` are sizes of windows, given with the sizes of the axes that they are of. ``unshare`` asks for
        `unshared_results`, where ``compile`` takes out copies."""
        self.part, self.compile, self._windows = part, compile, windows
        self.is_open, self.unshare = True, unshare
        self.variants: list[_Variant] = []  # the one that ran last comes first
        self.attempt: Callable[[Callable[[Sequence[Any]], Any], Sequence[Any]], Any] = lambda run, args: run(args)
        self._made = 0
        self._static = [i for i, n in enumerate(part.inputs) if n in part.addresses] if part.static else None
        self._dynamic = [dynamic_dims(n) for n in part.inputs]
        later = [(1, sizes), (0, first)] if part.static else []
        self._opened = [(least, opened(part.inputs, some)) for least, some in later]

    def __call__(self, args: Sequence[Any]) -> Sequence[Any]:
        if (variants := self.variants) and variants[0].holds(args):
            return variants[0].run(*args)
        variant = self._variant_for(args)
        return self._first_call(args) if variant is None else variant.run(*args)

    def _variant_for(self, args: Sequence[Any]) -> _Variant | None:
        for i, variant in enumerate(variants := self.variants):
            if variant.holds(args):
                if i:  # a new list: another thread may be looking through this one
                    self.variants = [variant, *(v for v in variants if v is not variant)]
                return variant
        return None

    def _first_call(self, args: Sequence[Any]) -> Sequence[Any]:
        """Compile for ``args``, unless another thread has done so meanwhile. The variant is kept once it has run."""
        with compile_lock:
            variant = self._variant_for(args)
            if variant is not None:
                return variant.run(*args)
            return self.attempt(self._compiled, args)

    def _compiled(self, args: Sequence[Any]) -> Sequence[Any]:
        variant = self._make_variant(args)
        results = variant.run(*args)
        if self.unshare:
            variant.run, results = with_unshared_results(variant.run, self.part, args, results)
        self.variants = [variant, *self.variants][: dynamo_config.recompile_limit]
        self._made += 1
        if self._made == dynamo_config.recompile_limit:
            warn(reasons.TOO_MANY, part=self.part.name, times=self._made)
        return results

    def _make_variant(self, args: Sequence[Any]) -> _Variant:
        if not self.part.static:
            return self._dynamic_variant(args)
        while sizes := self._to_open(args):
            try:
                return self._open_variant(args, sizes)
            except Exception:
                _logger.warning("kvfix: %s is compiled anew for each size", self.part.name, exc_info=True)
                self._opened = [(least, others) for least, others in self._opened if others != sizes]
                self.is_open = any(least == 0 for least, _ in self._opened)
        return self._static_variant(args)

    def _to_open(self, args: Sequence[Any]) -> Opened | None:
        """The sizes of ``args`` that are to be symbols in what is compiled next; None if there are none."""
        every = (sizes for least, sizes in self._opened if self._made >= least)
        return next((sizes for sizes in every if sizes.are_symbols(args)), None)

    def _open_variant(self, args: Sequence[Any], opened: Opened) -> _Variant:
        """A variant in which the sizes that are ``opened`` are symbols, and all else is static. Two sizes that are equal only
        now have two symbols."""
        env = ShapeEnv()
        mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
        fakes, known = fakes_of(mode, self.part.inputs, args, opened)
        places = symbol_places(fakes)
        sizes = [fakes[i].shape[d] for i, d in places]
        symbols = [to_expr(size) for size in [*(fakes[i] for i in opened.numbers), *sizes]]
        numbers = {i: a for i, a in enumerate(args) if isinstance(a, int) and not isinstance(fakes[i], torch.SymInt)}
        asked_for = values_at(opened.numbers, places)
        taken, before = values_at([i for i in range(len(args)) if i not in numbers], places), len(env.guards)
        run = self._compile([*fakes, *sizes], mode, numbers)
        asked = [g.expr for g in env.guards[before:] if is_asked(g.expr, known, self._windows)]
        look = variant_key(args, [i for i, node in enumerate(self.part.inputs) if varies(node)])
        wanted = function_of_sizes(symbols, asked, look(fakes))
        lie_alike = shares_memory if shares_memory(args) else lambda now: True
        return _Variant(lambda now: look(now) == wanted(*asked_for(now)) and lie_alike(now), lambda *now: run(*taken(now)))

    def _static_variant(self, args: Sequence[Any]) -> _Variant:
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        fakes = [mode.from_tensor(unviewed(a), static_shapes=True) if isinstance(a, torch.Tensor) else a for a in args]
        varying = [i for i, node in enumerate(self.part.inputs) if varies(node)]
        look = variant_key(args, varying)
        wanted = look(args)
        numbers = {i: a for i, a in enumerate(args) if isinstance(a, int)}
        run = self._compile(fakes, mode, numbers)
        if numbers:
            run = _without(run, [i for i in range(len(args)) if i not in numbers])
        return _Variant(lambda now: look(now) == wanted, run)

    def _dynamic_variant(self, args: Sequence[Any]) -> _Variant:
        """Compiled for all sizes at once. A part that takes a float runs uncompiled, since the float would become a constant.
        So does a part whose inputs share memory for which the compiler finds no base, as where the memory's size is a
        symbol."""
        if any(isinstance(a, float) for a in args):
            return _Variant(lambda now: True, self.part.gm.forward)
        env = ShapeEnv()
        mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=True)
        fakes = [fake_of(mode, f"t{i}", a, dims) for i, (a, dims) in enumerate(zip(args, self._dynamic, strict=True))]
        sizes = symbol_places(fakes)
        try:
            run = self._compile([*fakes, *(fakes[i].shape[d] for i, d in sizes)], mode, {})
        except Exception:
            if not shares_memory(args):
                raise
            _logger.warning("kvfix: %s runs as it is", self.part.name, exc_info=True)
            return _Variant(lambda now: True, self.part.gm.forward)
        guards = env.produce_guards_expression(fakes, ignore_static=False)
        holds = _predicate(guards if shares_memory(args) else _wherever(guards))
        given = values_at(range(len(args)), sizes)
        return _Variant(holds, lambda *now: run(*given(now)))

    @garbage_collection.paused()
    def _compile(self, fakes: list[Any], mode: FakeTensorMode, bound: Mapping[int, int]) -> Callable[..., Any]:
        """Compile the part for ``fakes``. The inputs at the places in ``bound`` become constants."""
        graph = _copy(self.part.gm.graph, len(fakes) - len(self.part.inputs), bound)
        gm = fx.GraphModule(self.part.gm, graph, class_name=self.part.name)
        taken = [i for i in range(len(fakes)) if i not in bound]
        static = None if self._static is None else [taken.index(i) for i in self._static]
        ops = sum(n.op == "call_function" for n in graph.nodes)
        let_go_of_tensors(mode)
        with tracing(TracingContext(mode)):
            with stage(f"compiling the {self.part.name}, {ops} ops"):
                given = [fakes[i] for i in taken]
                if static is None:
                    return beside_recast(gm, lambda rest: self.compile(rest, given, None))
                return self.compile(gm, given, static)


def _without(run: Callable[..., Any], taken: Sequence[int]) -> Callable[..., Any]:
    given = values_at(taken)
    return lambda *now: run(*given(now))


def _predicate(guards: str | None) -> Callable[[Sequence[Any]], bool]:
    """The expression ``guards`` over ``L['t0']``, ``L['t1']``, ... as a function of the sequence of arguments.

    `ShapeEnv.evaluate_guards_expression` would compile the text on every call. Here it is compiled once, and asks each tensor
    for its sizes and strides once a call.
    """
    code = re.sub(r"L\['t(\d+)'\]", r"args[\1]", guards or "True")
    asked = dict.fromkeys(re.findall(r"args\[\d+\]\.(?:size|stride)\(\)", code))
    for i, question in enumerate(asked):
        code = code.replace(question, f"x{i}")
    names = ", ".join(f"x{i}" for i in range(len(asked)))
    return eval(f"lambda args: (lambda {names}: {code})({', '.join(asked)})", dict(SYMPY_INTERP))


def _copy(graph: fx.Graph, numbers: int, bound: Mapping[int, int]) -> fx.Graph:
    """A copy of ``graph`` with constants for the inputs in ``bound``, and ``numbers`` more inputs that nothing reads."""
    new = fx.Graph()
    inputs = enumerate(graph.find_nodes(op="placeholder"))
    copies: dict[fx.Node, Any] = {node: bound[i] if i in bound else new.node_copy(node) for i, node in inputs}
    for i in range(numbers):
        new.placeholder(f"size_{i}")
    new.output(new.graph_copy(graph, copies))
    return new


def _wherever(guards: str | None) -> str:
    """``guards`` without those on storage offsets, which do not matter to inputs that do not share memory."""
    return " and ".join(g for g in (guards or "True").split(" and ") if "storage_offset()" not in g) or "True"
