"""Extents: which part of a padded axis is valid, followed from a cache read to what consumes it.

    k = buf[:, :, :end]          reading the whole buffer instead leaves an axis of which only [0, end) is valid:
    k = buf                      an extent on dim 2, of length `end`, on a full size of buf.size(2)
    kt = k.transpose(2, 3)       the extent is on dim 3 now
    s = q @ kt                   still on dim 3: its columns past `end` hold anything, NaN included
    p = s.softmax(-1)            consumed: the softmax must not see them, so they are filled with -inf before it ...
    o = p @ v                    ... and with 0 in both operands before a contraction

Each op on the way needs a rule (`rules/`), a function ``rule(node, flow) -> {dim: Extent}`` that gives the extents of
the result and books with `flow` what has to be done to the graph. No rule, no rewrite: the sites whose extents reach
such an op are refused, with its name and source line.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from fxpass.errors import NoRule, Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import slice_arguments
from fxpass.graph.numbers import Derived, derived, equal, guarded, number
from fxpass.graph.schemas import is_tagged

from .arithmetic import check
from .positions import Positions

aten = torch.ops.aten
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Extent:
    """``[0, length)`` is valid on an axis whose full size is that of dim ``full_dim`` of node ``full``.

    ``sites`` are the reads that this extent stems from: what is refused when the extent gets stuck.
    """

    length: fx.Node | Derived
    full: fx.Node
    full_dim: int
    sites: frozenset[fx.Node]

    @property
    def full_size(self) -> Any:
        return self.full.meta["val"].shape[self.full_dim]

    def same(self, other: Extent) -> bool:
        return equal(self.length, other.length) and guarded(self.full_size == other.full_size)


Extents = dict[int, Extent]
Rule = Callable[[fx.Node, "Flow"], Extents]

RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule for the given operators (overloads, or packets for all of them)."""

    def register(fn: Rule) -> Rule:
        for target in targets:
            overloads = [getattr(target, o) for o in target.overloads()] if hasattr(target, "overloads") else [target]
            for overload in overloads:
                RULES[overload] = fn
        return fn

    return register


@dataclasses.dataclass
class Fill:
    """Before ``user`` runs, the invalid part of its operand ``operand`` along the dims of ``extents`` becomes ``value``."""

    user: fx.Node
    operand: fx.Node
    extents: Extents
    value: Any


@dataclasses.dataclass
class Cut:
    """Before ``user`` runs, its operand ``operand`` is cut along the dims of ``extents`` to their full sizes."""

    user: fx.Node
    operand: fx.Node
    extents: Extents


@dataclasses.dataclass
class Flow:
    """One forward pass over a graph: the extents of every node and the edits that they ask for."""

    graph: fx.Graph
    positions: Positions
    extents: dict[fx.Node, Extents] = dataclasses.field(default_factory=dict)
    fills: list[Fill | Cut] = dataclasses.field(default_factory=list)
    sizes: list[tuple[fx.Node, Callable[[Any], None]]] = dataclasses.field(default_factory=list)
    replacements: list[tuple[fx.Node, Callable[[Any], fx.Node]]] = dataclasses.field(default_factory=list)
    lengths: list[Extent] = dataclasses.field(default_factory=list)
    refuse_copy: Callable[[fx.Node], None] = lambda node: None
    """Raises `Refusal` where a view of a cache cannot become a copy, because its memory is written later on."""

    def of(self, value: Any) -> Extents:
        """The extents of a node; nothing for constants and for nodes without any."""
        return self.extents.get(value, {}) if isinstance(value, fx.Node) else {}

    def fill(self, user: fx.Node, operand: Any, dims: Iterable[int], value: Any) -> None:
        """Book that ``user`` must see ``value`` in the invalid part of ``operand`` along ``dims``."""
        wanted = {d: e for d, e in self.of(operand).items() if d in set(dims)}
        if wanted:
            self.fills.append(Fill(user, operand, wanted, value))

    def replace(self, node: fx.Node, build: Callable[[Any], fx.Node]) -> None:
        """Book that ``node`` is replaced by what ``build(builder)`` makes in its place."""
        self.replacements.append((node, build))

    def find(self, size: Any) -> Extent | None:
        """The extent whose length is known to equal ``size``, a number made from positions.

        Raises:
            Refusal: there is one, and ``size`` is computed with what has no counterpart on tensors.
        """
        if not isinstance(number(size), torch.SymInt):
            return None
        return self._of_length(size, next((e for e in self.lengths if equal(e.length, size)), None))

    def within(self, size: Any) -> Extent | None:
        """An extent of the length ``size``: one that there is, or one on the axis of a buffer that has room for it.

        A size that does not move with a position, as of a chunk of any length, is none of a buffer's rows.

        Raises:
            Refusal: as `find`.
        """
        found = self.find(size)
        if found is None and self.positions.move(size):
            roomy = next((e for e in self.lengths if guarded(number(size) <= e.full_size)), None)
            found = self._of_length(size, roomy)
        return found

    def _of_length(self, size: Any, found: Extent | None) -> Extent | None:
        if found is None:
            return None
        check(size, self.positions)
        return dataclasses.replace(found, length=size)

    def derive(self, before: fx.Node, fn: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        """The number ``fn(a, b)`` of two numbers, as it can be computed before ``before``: the graph stays as it is."""
        return derived(fn, (a, b), before)

    def merge(self, *parts: Extents) -> Extents:
        """Union of extents on the same dims.

        Raises:
            Refusal: two of them disagree about an axis.
        """
        out: Extents = {}
        for part in parts:
            for dim, extent in part.items():
                if dim in out and not out[dim].same(extent):
                    raise Refusal("two different valid lengths meet on one axis")
                sites = out[dim].sites | extent.sites if dim in out else extent.sites
                out[dim] = dataclasses.replace(extent, sites=sites)
        return out


@dataclasses.dataclass
class Stuck:
    """Why the extents of ``sites`` cannot be followed: the rule that is missing or says no, at ``node``."""

    node: fx.Node
    sites: frozenset[fx.Node]
    reason: str
    no_rule: bool = False


def follow(
    graph: fx.Graph,
    positions: Positions,
    begin: Callable[[fx.Node, Flow], Extents | None],
    ahead: Iterable[Extent] = (),
    refuse_copy: Callable[[fx.Node], None] = lambda node: None,
) -> Flow | Stuck:
    """Follow extents through ``graph``; the first dead end stops the pass.

    ``begin(node, flow)`` gives the extents that a read starts at ``node``, or None. It is asked in program order, because what
    an extent's `size` is used for, further down, may be a position-bounded slice too. ``ahead`` are extents that an earlier
    pass has found: a mask is often made to its size before the cache is read.
    """
    from . import rules  # noqa: F401  (registers)

    flow = Flow(graph, positions, lengths=list(ahead), refuse_copy=refuse_copy)
    for node in graph.nodes:
        carried = [e for i in node.all_input_nodes for e in flow.of(i).values()]
        try:
            begun = begin(node, flow)
            if begun is not None:
                flow.extents[node] = {**_apply(node, flow, sliced=begun), **begun} if carried else begun
                flow.lengths += begun.values()
            elif carried:
                flow.extents[node] = _apply(node, flow)
            elif made := _made_to_size(node, flow):
                flow.extents[node] = made
        except Refusal as refusal:
            sites: frozenset[fx.Node] = frozenset().union(*(e.sites for e in carried))
            if sites:
                return Stuck(node, sites, str(refusal), isinstance(refusal, NoRule))
        except Exception as error:
            sites = frozenset().union(*(e.sites for e in carried))
            if not sites:
                raise
            logger.warning("kvfix: the rule for %s failed", node.target, exc_info=error)
            return Stuck(node, sites, f"the rule for {node.target} failed: {type(error).__name__}: {error}")
    return flow


def _apply(node: fx.Node, flow: Flow, sliced: Extents | None = None) -> Extents:
    if sliced is not None and any(d in flow.of(node.args[0]) for d in sliced):
        raise Refusal("the position-dependent axis is sliced again")
    if node.op == "output":
        raise Refusal("a tensor whose size depends on the position leaves the graph")
    if node.target is aten.sym_size.int:
        source, dim = node.args
        extent = flow.of(source).get(dim % source.meta["val"].dim())
        if extent is not None:
            flow.positions.alias(node, extent.length)
        return {}
    if any(flow.of(target) and _is_part(target, flow) for target in aliases.written(node)):
        return RULES["stores"](node, flow)
    known = RULES.get(node.target)
    if known is None and _is_pointwise(node.target):
        known = RULES["pointwise"]
    if known is None:
        raise NoRule(f"no rule for {node.target}")
    return known(node, flow)


def _is_pointwise(target: Any) -> bool:
    """Whether each element of the result depends on its own place only: what is drawn depends on how much is."""
    return is_tagged(target, torch.Tag.pointwise) and not is_tagged(target, torch.Tag.nondeterministic_seeded)


def _made_to_size(node: fx.Node, flow: Flow) -> Extents:
    """Extents of a tensor created to a position-dependent size (`ones`, `arange`, ...)."""
    known = RULES.get(("factory", node.target))
    if known is None or not any(i in flow.positions for i in node.all_input_nodes):
        return {}
    return known(node, flow)


def _is_part(view: fx.Node, flow: Flow) -> bool:
    """Whether ``view`` is cut at a position out of memory that holds more: what writes to it must leave the rest alone."""
    while (base := aliases.base(view)) is not None:
        if view.target in (aten.slice.Tensor, aten.narrow.default):
            dim = slice_arguments(view)[1] % view.meta["val"].dim()
            if flow.of(view).get(dim) is not flow.of(base).get(dim):
                return True
        view = base
    return False
