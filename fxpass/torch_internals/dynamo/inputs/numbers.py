"""The numbers among a captured graph's inputs, and what the calls of its frame so far say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.calls import CallHistory, Graph, Kind
from fxpass.analysis.kinds import Kinds, Seen, Symbol
from fxpass.analysis.pure_sizes import only_sizes
from fxpass.graph.inputs import dynamo_source
from fxpass.graph.numbers import hint, symbols, to_expr
from fxpass.torch_internals.dynamo.frames.history import FrameHistory, calls_of, current_code, current_frame, history_of
from fxpass.torch_internals.dynamo.guards.frame_values import value_at
from fxpass.torch_internals.dynamo.guards.sources import AggregateSource, PositionSource, user_text
from fxpass.torch_internals.dynamo.names import TensorPropertySource


@dataclasses.dataclass(frozen=True)
class NumberInput:
    """The SymInt ``value`` at ``place`` in a graph's arguments.

    name: that of its source.
    is_size: whether it is a size, a stride or the offset of a tensor.
    kind: what the calls say of it, if they do.
    is_held: whether an index tensor holds it.
    """

    place: int
    name: str
    value: torch.SymInt
    is_size: bool
    kind: Kind | None
    is_held: bool = False

    @property
    def symbols(self) -> set[Any]:
        """The symbols that stand for it by now: a guard may have replaced one symbol by another."""
        return symbols(self.value)


class NumberInputs:
    """The numbers that the Dynamo graph ``gm`` is given."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.all: list[NumberInput] = []
        self._in_doubt: set[str] = set()
        """The ints that have moved for the first time, after calls in which they stayed."""
        self._rising: list[torch.SymInt] = []
        """The sizes of tensors that have been seen to grow from call to call."""
        self._sizes: dict[tuple[str, int], torch.SymInt] = {}
        self._history = FrameHistory()
        self.before: dict[tuple[int, int], int | None] = {}
        """How long tensors were in the last call, by their places and dims."""
        self._derived: list[tuple[str, int, int]] = []
        self._calls = CallHistory()
        self._graph = Graph([], {})
        self._owner = 0
        code = current_code()
        if code is None:
            return
        self._calls, constants = calls_of(code)
        self._history = history_of(code)
        owner = self._find_owner(gm)
        for place, node in enumerate(gm.graph.find_nodes(op="placeholder")):
            source, value = dynamo_source(node), node.meta.get("example_value")
            if source is None:
                continue
            if isinstance(value, torch.Tensor):
                self._see_sizes(place, source.name, value, constants)
            elif isinstance(value, torch.SymInt) and value.node.hint is not None:  # an unbacked one has no history
                is_size = isinstance(source, TensorPropertySource)
                held, kind = isinstance(source, (PositionSource, AggregateSource)), self._kind(source, value)
                self.all.append(NumberInput(place, user_text(source), value, is_size, kind, held))
        self._settle_ints()
        names = [number.name for number in self.all]
        self._derived = [size for size in self._derived if size[0] not in names]
        names += [name for name, *_ in self._derived]
        fixed = {name: value for name, value in constants.items() if name not in names}
        self._graph = Graph(names, fixed, owner, any(number.kind == "position" for number in self.all))

    def _find_owner(self, gm: fx.GraphModule) -> int | None:
        """The place of the first input that belongs to a module, by which the calls of the module are known. None if there is
        none."""
        tx = current_frame()
        for place, node in enumerate(gm.graph.find_nodes(op="placeholder")):
            source, value = dynamo_source(node), node.meta.get("example_value")
            if source is not None and isinstance(value, torch.Tensor) and source.guard_source.is_unspecialized_nn_module():
                self._owner = id(value_at(tx, source))
                return place
        return None

    def _see_sizes(self, place: int, name: str, value: torch.Tensor, constants: dict[str, int]) -> None:
        """Take note of the sizes of the tensor called ``name``. One that a guard has made of other numbers is no input."""
        for d, size in enumerate(value.shape):
            own, now = f"{name}.size()[{d}]", hint(size)
            if now is None:
                continue  # an unbacked one
            constants[own] = now
            self.before[place, d] = self._calls.last(own, self._owner)
            if isinstance(size, torch.SymInt):
                self._derived.append((own, place, d))
                self._sizes[name, d] = size
                self._rising += [size] if self._calls.kind(own, now, True, self._owner) == "growth" else []

    def _kind(self, source: Any, value: torch.SymInt) -> Kind | None:
        if isinstance(source, (PositionSource, AggregateSource)):
            return "position"
        return self._calls.kind(user_text(source), value.node.hint, isinstance(source, TensorPropertySource), self._owner)

    def _settle_ints(self) -> None:
        """Decide the kinds that the calls do not tell, or not by themselves.

        An int that they tell nothing about is a variant if it moves as a size does that is one; otherwise it is a position. An
        int that repeats a size which is a variant, ``n`` beside ``x[:, :n]``, is a variant, too. Any other number that repeats
        a position is a position.
        """
        sizes = {self._moved(n) for n in self.all if n.is_size and n.kind == "variant"}
        for i, n in enumerate(self.all):
            if n.kind is None and not n.is_size:
                self.all[i] = dataclasses.replace(n, kind="variant" if self._moved(n) in sizes else "position")
                self._in_doubt |= {n.name} if self._calls.has_stayed(n.name) else set()
        rows = {to_expr(n.value) for n in self.all if n.is_size and n.kind == "variant"}
        for i, n in enumerate(self.all):
            if n.kind == "position" and not n.is_size and not n.is_held and to_expr(n.value) in rows:
                self.all[i] = dataclasses.replace(n, kind="variant")
        moving = {s for n in self.all if n.kind == "position" for s in n.symbols}
        for i, n in enumerate(self.all):
            if n.kind == "variant" and n.symbols & moving:
                self.all[i] = dataclasses.replace(n, kind="position")

    def _moved(self, number: NumberInput) -> tuple[int | None, int]:
        """From where, and to where, ``number`` has moved since the last call."""
        return self._calls.last(number.name, self._owner), number.value.node.hint

    def settle(self, graph: fx.Graph) -> None:
        """Make a variant of each int in doubt that only tells how large new tensors of ``graph``, in normal form, are."""
        others = {s for n in self.all if n.name not in self._in_doubt for s in n.symbols}
        doubtful = {s for n in self.all if n.name in self._in_doubt for s in n.symbols} - others
        sizes = only_sizes(graph, doubtful) if doubtful else set()
        for i, n in enumerate(self.all):
            if n.name in self._in_doubt and n.symbols and n.symbols <= sizes:
                self.all[i] = dataclasses.replace(n, kind="variant")

    def seen(self) -> Seen:
        """What the calls so far say of the symbols. What was foreseen to grow in vain is a variant until they say otherwise."""
        kinds: dict[Any, Kind | None] = {}
        for kind in (None, "variant", "growth", "position"):  # of a symbol that several numbers have, what moves decides
            kinds |= {s: kind for n in self.all if n.kind == kind for s in n.symbols}  # type: ignore[misc]
        in_vain = {s for (name, _), size in self._sizes.items() if name in self._history.dynamic_in_vain for s in symbols(size)}
        kinds |= {s: "variant" for s in in_vain if s in kinds and kinds[s] is None}
        return Seen(kinds, {s for n in self.all if n.name in self._calls.corrected for s in n.symbols})

    @property
    def steady_ints(self) -> set[str]:
        """The names of the caller's ints that do not move."""
        return {n.name for n in self.all if n.kind == "variant"}

    @property
    def growing(self) -> tuple[set[Any], list[torch.SymInt]]:
        """The symbols of sizes that may grow, since they have not been seen to stay, or have grown in another graph, and the
        sizes that have been seen to rise, or will do so from this call on, as far as is foreseen."""
        moving = {s for s, kind in self.seen().kinds.items() if kind in (None, "growth")}
        places = [(name, dim) for name, (dim, _) in self._history.foreseen.items()]
        foreseen = [self._sizes[place] for place in places if place in self._sizes]
        known = [self._sizes[place] for place in self._history.grown & self._sizes.keys()]
        return moving | {s for size in [*foreseen, *known] for s in symbols(size)}, self._rising + foreseen

    def table(self, kinds: Kinds, lengths: Set[Any] = frozenset()) -> list[Symbol]:
        """The rows of the report: each symbol, its kind, and the number that it is of. Sizes in ``lengths`` grow in buffers."""
        shown = [(n, n.symbols - kinds.layouts) for n in self.all]
        grows = {n.name for n, own in shown if n.is_size and own <= lengths}
        kind = {n.name: "growth" if n.name in grows else kinds.of(n.value) or "variant" for n, _ in shown}
        return [Symbol(", ".join(sorted(map(str, own))), kind[n.name], n.name) for n, own in shown if own]

    def bound(self, kinds: Kinds, strides: Set[Any] = frozenset()) -> list[NumberInput]:
        """The numbers for each value of which a core is compiled: variants, and what is made of ``strides``."""
        variants = [n for n in self.all if kinds.of(n.value) == "variant" and n.symbols - kinds.layouts]
        return [n for n in self.all if n in variants or n.symbols & strides]

    def correct(self, number: NumberInput) -> None:
        """Remember that ``number`` moves, although it was taken for a variant."""
        self._calls.corrected.add(number.name)

    def watching(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls ``compiled``, and takes note of the numbers of each call."""
        if not self._graph.names and not self._graph.fixed:
            return compiled
        sizes = [(place, dim) for _, place, dim in self._derived]
        return self._calls.watched(compiled, self._graph, [number.place for number in self.all], sizes)
