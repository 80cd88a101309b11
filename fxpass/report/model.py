"""The report of one graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import networkx as nx

from fxpass import reasons
from fxpass.analysis.kinds import Symbol

from .drawing import Drawings
from .lazy import Lazy
from .memory_sizes import in_words
from .names import user_name
from .readable import readable_code
from .site import Site
from .symbols import called, sources


@dataclasses.dataclass
class Report:
    """What kvfix found in one graph and what it made of it. Print it (``rich.print`` for colors) or read the fields.

    name: "graph 0", "graph 1", ... in order of compilation, after the ``name`` that `torch.compile` was given, if it was.
    sites: every place that uses a position.
    unfit: why the graph as a whole was handed on unrewritten; empty if it was not.
    unbuffered: why what grows got no buffers, where it was tried.
    buffers: the buffers of inputs that grow, as they were last made: (name of the input, dtype and sizes, bytes).
    faults: the hooks into torch that failed while the graph was captured, each with its error; torch went on without them.
    parts: how the graph was cut: (name, static, number of ops) of each part that runs, in order.
    outside: the products and attention that run outside of the static part, a line each: source, op, what keeps it there.
    beside: the light ops that run outside of the static part, a line for each part that is not static.
    symbols: every symbol that the graph is given: (symbol, "position", "growth" or "variant", what it is of). Symbols that
        only tell where in memory an input lies are left out.
    kinds: the kind of every symbol in the graph: one of those above, "capacity", "window" or "layout".
    corrected: numbers that were taken for variants and had too many values; they are left symbolic since.
    notes: reasons for how the graph is run: recordings, copies.
    pinned: reasons for numbers that are constants in the graph although they move with each call, so each value makes a graph.
    ended: why the graph ends where it does, if that is a graph break: a reason.
    script: what `fxpass.repro` writes; made when it is asked for.
    drawings: the graphs; drawn when they are asked for.
    compile_id: what torch's logs call the compilation, such as "0/1".
    timings: seconds spent in each stage.
    flow: positions, sites and consumers as a networkx graph (see `fxpass.analysis.flow`).
    """

    name: str
    sites: list[Site] = dataclasses.field(default_factory=list)
    unfit: str = ""
    unbuffered: str = ""
    buffers: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    pinned: list[str] = dataclasses.field(default_factory=list)
    parts: list[tuple[str, bool, int]] = dataclasses.field(default_factory=list)
    outside: list[str] = dataclasses.field(default_factory=list)
    beside: list[str] = dataclasses.field(default_factory=list)
    symbols: list[Symbol] = dataclasses.field(default_factory=list)
    kinds: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    corrected: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    ended: str = ""
    script: Lazy[str] = dataclasses.field(default_factory=lambda: Lazy(str), repr=False, compare=False)
    drawings: Drawings = dataclasses.field(default_factory=Drawings, repr=False, compare=False)
    compile_id: str = ""
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    flow: nx.DiGraph = dataclasses.field(default_factory=nx.DiGraph, repr=False)

    @property
    def rewritten(self) -> int:
        """How many sites were rewritten."""
        return sum(site.decision == "rewritten" for site in self.sites)

    @property
    def refused(self) -> int:
        """How many sites were refused."""
        return sum(site.decision == "refused" for site in self.sites)

    @property
    def lacks_buffer(self) -> bool:
        """Whether a cache grows and got no buffer. What the caller makes longer, and what is worked on as a whole, is no
        cache."""
        return reasons.of(self.unbuffered) not in (None, reasons.GROWS_WHOLE)

    @property
    def works_on_growth(self) -> bool:
        """Whether all of what grows is worked on in each call, and has no buffer."""
        return any(reasons.of(text) is reasons.GROWS_WHOLE for text in (self.unbuffered, *self.notes))

    @property
    def loses_slices(self) -> bool:
        """Whether the graph ends at a graph break, and what it has cut out of a cache goes on behind it."""
        return bool(self.ended) and any(site.id == reasons.LEAVES.id for site in self.sites)

    @property
    def alike(self) -> list[list[Site]]:
        """The sites in groups: those of a group differ in their layer alone."""
        groups: dict[tuple[str, ...], list[Site]] = {}
        for site in self.sites:
            key = site.kind, site.source, site.code, site.size, site.position, site.decision, site.reason
            groups.setdefault(key, []).append(site)
        return list(groups.values())

    @property
    def host_reads(self) -> int:
        """How often an index tensor has been read for a guard since the last `fxpass.reset`, in all graphs."""
        from fxpass.index_tensors import mirror

        return mirror.counters.refreshes

    @property
    def names(self) -> dict[str, str]:
        """What symbols are called in code: ``{"s0": "pos", "s61": "capacity"}``."""
        return called(self.kinds)

    @property
    def before(self) -> str:
        """Readable code of the graph in normal form."""
        return readable_code(self.graph_before, self.names)

    @property
    def after(self) -> str:
        """Readable code of the rewritten graph; equal to `before` where nothing was rewritten."""
        return readable_code(self.graph_after, self.names)

    @property
    def core(self) -> str:
        """Readable code of the static part; empty where there is none."""
        return "\n".join(readable_code(part, self.names) for part in self.drawings.static())

    @property
    def graph_before(self) -> nx.DiGraph:
        """The graph in normal form as a networkx graph, see `fxpass.report.drawing`."""
        return self.drawings.before()

    @property
    def graph_after(self) -> nx.DiGraph:
        """The rewritten graph as such a graph."""
        return self.drawings.placed()

    def diff(self) -> str:
        """`before` and `after` as a unified diff."""
        import difflib

        lines = difflib.unified_diff(
            self.before.splitlines(), self.after.splitlines(), "before", "after", lineterm="", n=2
        )
        return "\n".join(lines)

    @property
    def in_short(self) -> list[str]:
        """What there is to say of the graph as a whole, in a few words each."""
        said = [f"{self.rewritten} rewritten, {self.refused} refused"]
        said += [f"not rewritten: {self.unfit}"] if self.unfit else []
        said += [f"failed: {fault}" for fault in self.faults]
        said += map(user_name, self.pinned)
        if self.parts:
            parts = [f"{name} ({count} ops{', static' if static else ''})" for name, static, count in self.parts]
            said.append(" -> ".join(parts))
        variants = dict.fromkeys(user_name(symbol.of) for symbol in self.symbols if symbol.kind == "variant")
        said += [f"one core for each {', '.join(variants)}"] if variants and self.parts else []
        said += [f"no variant, it has had too many values: {user_name(name)}" for name in self.corrected]
        said += [f"buffer of {in_words(size)}, {kind}, for {name}" for name, kind, size in self.buffers]
        said += [f"outside of the core: {user_name(line)}" for line in self.outside]
        said += map(user_name, self.beside)
        return said + ([f"{sum(self.timings.values()):.2f} s"] if self.timings else [])

    def __str__(self) -> str:
        from .text import plain

        return plain(self.__rich__())

    def __rich__(self) -> Any:
        from .text import table

        return table(self.name, self.in_short, self.sites, self.names | sources(self.symbols))
