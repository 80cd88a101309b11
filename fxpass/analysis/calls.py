"""What is seen of the numbers of a frame, from one of its calls to the next.

    graph 0    start = 0, rows = 12          the prompt
    graph 1    start = 12, rows = 1          a step: both have moved
    graph 1    start = 13, rows = 1          another: ``start`` has moved, ``rows`` has stayed

Each call adds one entry to a queue. The latest entries are counted when a graph is compiled. Blocks of one class that are
compiled one by one share a frame, and a step calls it once for each of them: a number is compared with what it was at the last
call of the same block.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from typing import Any, Literal

from fxpass.graph.arguments import values_at
from fxpass.torch_internals.lookup_order import meet, threads
from fxpass.torch_internals.patches import tell

Kind = Literal["position", "growth", "variant"]
"""See `kinds`."""

STEADY = 4
"""An int that moves at most once in so many calls is steady."""
_MOST_ENTRIES = 64
"""What calls before the last compilation have shown is counted already. Of those since, the latest are enough."""
_MOST_NUMBERS = 65536


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """One graph of the frame. The numbers called ``names`` are its arguments; those in ``fixed`` are the same in all its calls.

    The argument at ``owner`` belongs to one module, and so tells which module is called. A graph with positions is a step's.
    """

    names: Sequence[str]
    fixed: Mapping[str, int]
    owner: int | None = None
    is_step: bool = False


@dataclasses.dataclass
class CallHistory:
    """What has been seen of a frame's numbers, which are called by the names of their sources.

    ``corrected`` holds the names of those that were taken for variants and have moved since.
    """

    corrected: set[str] = dataclasses.field(default_factory=set)
    _entries: collections.deque[tuple[Graph, tuple[int, ...], int]] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=_MOST_ENTRIES)
    )
    _last: dict[str, int] = dataclasses.field(default_factory=dict)
    _last_of: dict[tuple[str, int], int] = dataclasses.field(default_factory=dict)
    _owners: set[int] = dataclasses.field(default_factory=set)
    _graph: Graph | None = None
    _again: int = 0
    _repeated: bool = False
    _stays: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _stays_in_steps: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _moves: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _rises: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def watched(
        self, run: Callable[..., Any], graph: Graph, places: Sequence[int], sizes: Sequence[tuple[int, int]] = ()
    ) -> Callable[..., Any]:
        """A function that notes each call of ``run``, which is compiled from ``graph``.

        The numbers called ``names`` are the arguments at ``places``, and then the ``sizes``, each of an argument along a dim.
        """
        taken = values_at(places, sizes)

        def call(*args: Any) -> Any:
            if get_ident() not in threads:
                meet()
            try:
                self.see(graph, taken(args), 0 if graph.owner is None else id(args[graph.owner]))
            except Exception as error:
                tell(CallHistory.see, error)
            return run(*args)

        return call

    def see(self, graph: Graph, values: tuple[int, ...], owner: int = 0) -> None:
        """Note a call of ``graph`` with ``values``, one for each of its ``names``. ``owner`` is the identity of the module."""
        self._entries.append((graph, values, owner))

    def last(self, name: str, owner: int = 0) -> int | None:
        """The value that the number called ``name`` had at the last call of ``owner``, or of another module where this one has
        not been called; None if it has not been seen."""
        self._count()
        return self._last_of.get((name, owner), self._last.get(name))

    def has_stayed(self, name: str) -> bool:
        """Whether the number called ``name`` has been the same in two calls, one after the other."""
        self._count()
        return self._stays[name] > 0

    def mostly_moves(self, name: str) -> bool:
        """Whether the number called ``name`` has moved from one call to the next more often than it has stayed."""
        self._count()
        return self._moves[name] > self._stays[name]

    def kind(self, name: str, value: int, is_size: bool, owner: int = 0) -> Kind | None:
        """The kind of the number called ``name``, a size or an int of the caller's, whose value is ``value`` in a call of
        ``owner`` now.

        A size is a growth where it has moved more often than it has stayed, and has mostly risen. In doubt it is a variant,
        which is corrected later. An int is a variant where it is steady, or where steps have left it as it was.

        The kind is None for a number that has not been seen. It is None, too, for an int that moves for the first time and
        either was 0 until now or has not been seen in many steps.
        """
        last = self.last(name, owner)
        if name in self.corrected or last is None:
            return None if last is None else "growth" if is_size else "position"
        stays, moves, rises = self._stays[name], self._moves[name], self._rises[name]
        if is_size:
            moves, rises = moves + (last != value), rises + (value > last)
            return "growth" if moves > stays and 2 * rises > moves else "variant"
        if last != value:
            return "position" if moves else "variant" if last and self._stays_in_steps[name] >= STEADY else None
        return "variant" if STEADY * moves <= stays + 1 + STEADY // 2 else "position"

    def repeated(self) -> bool:
        """Whether the last calls ran one graph, and one owner's more than once.

        A graph that holds a constant which moves with every step runs once for each owner.
        """
        self._count()
        return self._repeated

    @property
    def sizes_move(self) -> bool:
        """Whether a tensor has been seen to have another size than at the call before."""
        self._count()
        return any(times and name.endswith("]") and ".size()[" in name for name, times in self._moves.items())

    def _count(self) -> None:
        while self._entries:
            graph, values, owner = self._entries.popleft()
            if graph is not self._graph:
                self._settle()
                self._graph, self._owners = graph, set()
                self._note(graph.fixed.items(), owner)
            self._repeated = owner in self._owners
            self._again += self._repeated
            self._owners.add(owner)
            self._note(zip(graph.names, values, strict=True), owner)
        self._settle()

    def _note(self, numbers: Iterable[tuple[str, int]], owner: int) -> None:
        if len(self._last_of) > _MOST_NUMBERS:
            self._last_of.clear()
        for name, value in numbers:
            last = self._last_of.get((name, owner))
            self._last_of[name, owner] = value
            if last is not None:
                self._see(name, last == value)
                self._rises[name] += value > last
            self._last[name] = value

    def _see(self, name: str, stays: bool, times: int = 1) -> None:
        (self._stays if stays else self._moves)[name] += times
        if stays and self._graph is not None and self._graph.is_step:
            self._stays_in_steps[name] += times

    def _settle(self) -> None:
        """For each number that is fixed in a graph, count how often the graph was called again before another one was."""
        for name in self._graph.fixed if self._graph is not None and self._again else ():
            self._see(name, stays=True, times=self._again)
        self._again = 0
