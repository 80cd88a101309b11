"""Extents: which part of an axis is valid, followed from the read of a cache to the ops that consume it.

    k = buf[:, :, :end]          reading the whole buffer instead leaves an axis of which only [0, end) is valid:
    k = buf                      an extent on dim 2, of length `end`, on a full size of buf.size(2)
    kt = k.transpose(2, 3)       the extent is on dim 3 now
    s = q @ kt                   still on dim 3: its columns past `end` hold anything, NaN included
    p = s.softmax(-1)            consumed: the softmax must not see them, so they are filled with -inf before it ...
    o = p @ v                    ... and with 0 in both operands before a contraction

Each op on the way needs a rule (`rules/`): a function ``rule(node, flow) -> {dim: Extent}`` that gives the extents of the
result, and tells ``flow`` what has to be done to the graph. If an op has no rule, the sites whose extents reach it are refused,
with its name and source line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.numbers import Derived, derived, equal, guarded, number, to_expr

from .arithmetic import check
from .positions import Positions


@dataclasses.dataclass(frozen=True)
class Extent:
    """The elements ``[0, length)`` of an axis are valid. The axis has ``full`` elements: an int, or a number that the graph can
    compute.

    ``reads`` are the slices that the extent stems from. They are refused if the extent cannot be followed.
    """

    length: fx.Node | Derived
    full: int | Derived
    reads: frozenset[fx.Node]

    @property
    def full_size(self) -> Any:
        """``full`` as an int or a SymInt."""
        return number(self.full)

    def same(self, other: Extent) -> bool:
        """Whether both axes have one valid length, and one full size, which may add a guard.

        Of two sizes that are one, as many rows are valid where as many are not: ``k[:, 32 - n:]`` and ``v[:, 32 - n:]``.
        """
        rest, other_rest = (to_expr(one.full_size - number(one.length)) for one in (self, other))
        is_one = equal(self.length, other.length) or bool(rest == other_rest)
        return is_one and guarded(self.full_size == other.full_size)


Extents = dict[int, Extent]
Rule = Callable[[fx.Node, "Flow"], Extents]

RULES: dict[Any, Rule] = {}

Leave = Callable[[fx.Node, Extents, Positions], bool]
"""Whether a result with these extents may leave the graph at full size, to be cut outside of it to lengths that positions
tell."""


def no_result(result: fx.Node, extents: Extents, positions: Positions) -> bool:
    """No result may leave at full size."""
    return False


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
    """``user`` is to take ``operand`` with ``value`` in its invalid part along the dims of ``extents``."""

    user: fx.Node
    operand: fx.Node
    extents: Extents
    value: Any


@dataclasses.dataclass
class Cut:
    """``user`` is to take ``operand`` cut along the dims of ``extents`` to their full sizes."""

    user: fx.Node
    operand: fx.Node
    extents: Extents


@dataclasses.dataclass(frozen=True)
class WrittenSlice:
    """A slice that is only written to: ``count`` rows of ``base``, from ``start`` on, along ``dim``.

    extent: that of ``base`` along ``dim``.
    squeezed: whether the slice lacks that dim, as ``x[:, 0]`` does.
    """

    base: fx.Node
    dim: int
    extent: Extent
    start: Any
    count: Any
    squeezed: bool = False


@dataclasses.dataclass
class Flow:
    """The result of one pass over a graph: the extents of every node, and the edits that they ask for.

    extents: the extents of each node that has some, by the dim of its result.
    fills: the operands to be filled or cut before an op takes them.
    replacements: ops to be replaced, each with a function that builds its replacement.
    lengths: the extents met so far, in order; a size that equals the length of one is recognized by it.
    parts: the slices that are only written to, by themselves or by views of them.
    refuse_copy: raises `Refusal` for a view of a cache that cannot become a copy, because its memory is written later on.
    leave: whether a result with extents may leave the graph at full size.
    steady: ``steady(size, node)`` gives ``size`` as a number to be read before ``node``; None where it moves from step to step.
    """

    graph: fx.Graph
    positions: Positions
    extents: dict[fx.Node, Extents] = dataclasses.field(default_factory=dict)
    fills: list[Fill | Cut] = dataclasses.field(default_factory=list)
    replacements: list[tuple[fx.Node, Callable[[Any], fx.Node]]] = dataclasses.field(default_factory=list)
    lengths: list[Extent] = dataclasses.field(default_factory=list)
    parts: dict[fx.Node, WrittenSlice] = dataclasses.field(default_factory=dict)
    refuse_copy: Callable[[fx.Node], None] = lambda node: None
    leave: Leave = no_result
    steady: Callable[[Any, fx.Node], Any] = lambda size, node: None

    def of(self, value: Any) -> Extents:
        """The extents of ``value``; none for a constant."""
        return self.extents.get(value, {}) if isinstance(value, fx.Node) else {}

    def part_of(self, node: fx.Node | None) -> tuple[fx.Node, list[fx.Node]] | None:
        """The slice among ``parts`` that ``node`` is, or is a view of, and the views that lead from it to ``node``."""
        views: list[fx.Node] = []
        while node is not None and node not in self.parts:
            views.append(node)
            node = aliases.base(node)
        return None if node is None else (node, views[::-1])

    def fill(self, user: fx.Node, operand: Any, dims: Iterable[int], value: Any) -> None:
        """Ask that ``user`` takes ``operand`` with ``value`` in its invalid part along ``dims``."""
        wanted = {d: e for d, e in self.of(operand).items() if d in set(dims)}
        if wanted:
            self.fills.append(Fill(user, operand, wanted, value))

    def replace(self, node: fx.Node, build: Callable[[Any], fx.Node]) -> None:
        """Ask that ``node`` is replaced by what ``build(builder)`` makes in its place."""
        self.replacements.append((node, build))

    def find(self, size: Any) -> Extent | None:
        """The extent whose length is known to equal ``size``, a number made from positions.

        Raises:
            Refusal: there is one, but ``size`` is computed by an operator that has no counterpart on tensors.
        """
        if not isinstance(number(size), torch.SymInt):
            return None
        return self._of_length(size, next((e for e in self.lengths if equal(e.length, size)), None))

    def within(self, size: Any, holds: Callable[[Any], bool] = guarded) -> Extent | None:
        """An extent of the length ``size``: one that exists, or a new one on the axis of a buffer that ``holds`` says has room.

        None for a size that does not move with a position, such as that of a chunk of any length.

        Raises:
            Refusal: as `find`.
        """
        found = self.find(size)
        if found is None and self.positions.move(size):
            roomy = next((e for e in self.lengths if holds(number(size) <= e.full_size)), None)
            found = self._of_length(size, roomy)
        return found

    def _of_length(self, size: Any, found: Extent | None) -> Extent | None:
        if found is None:
            return None
        check(size, self.positions)
        return dataclasses.replace(found, length=size)

    def derive(self, before: fx.Node, fn: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        """The number ``fn(a, b)``, to be computed before the node ``before`` where that is needed. The graph is not edited."""
        return derived(fn, (a, b), before)

    def merge(self, *parts: Extents) -> Extents:
        """The union of ``parts``.

        Raises:
            Refusal: two of them have different extents on one axis.
        """
        out: Extents = {}
        for part in parts:
            for dim, extent in part.items():
                if dim in out and not out[dim].same(extent):
                    raise Refusal(reasons.LENGTHS, what="two operands")
                reads = out[dim].reads | extent.reads if dim in out else extent.reads
                out[dim] = dataclasses.replace(extent, reads=reads)
        return out
