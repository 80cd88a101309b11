"""What is known of a graph between two attempts to rewrite it.

Edits that help an attempt (an operator is decomposed, an input is padded) are undone when something is refused. What is refused
is copied for good where it has other uses (`refused_uses`). Where such an edit made it, that edit is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import fx

from fxpass.analysis.extents import Extent
from fxpass.analysis.follow import Stuck
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.sites import SiteFinder, SliceSite
from fxpass.graph.extract import descendants
from fxpass.graph.numbers import supposing
from fxpass.graph.source_lines import source_of
from fxpass.graph.values import is_tensor

from .buffers.windows import Windows
from .decide import extents_ahead, reads_ahead
from .decisions import reason
from .edits.padded import pad_inputs
from .refused_uses import refused_use
from .restore import Restorable


class Attempts:
    """The attempts at the graph of ``gm``.

    origins: the placeholders that are positions.
    refused: the sites that are refused, with the reasons.
    restorable: undoes the edits of an attempt.
    """

    def __init__(
        self, gm: fx.GraphModule, origins: Mapping[fx.Node, Origin], seen: Seen | None, windows: Windows | None
    ) -> None:
        self.origins, self.seen = origins, seen
        self.refused: dict[fx.Node, str] = {}
        self._uses: dict[fx.Node, tuple[str, str]] = {}
        self.restorable, self._came = Restorable(gm), Restorable(gm)
        self._gm, self._windows, self._unpadded = gm, windows, set[str]()
        self._made_of, self._whole = dict[fx.Node, fx.Node](), set[fx.Node]()
        if windows is not None:
            windows.open(gm.graph, self._reads(), Positions(gm.graph, origins))
            self.seen = windows.seen(gm.graph, seen)
        self._pad()

    def decomposed(self, node: fx.Node, decompose: Callable[[fx.Node], bool]) -> bool:
        """Replace ``node`` by ops that compute it; False if that cannot be done, or an earlier attempt refused one of them."""
        whole = self._made_of.get(node, node)
        if whole in self._whole:
            return False
        self.restorable.copy_once()
        before = set(self._gm.graph.nodes)
        try:
            done = decompose(node)
        except Exception as error:
            reason(error)
            return False
        self._made_of |= {made: whole for made in self._gm.graph.nodes if made not in before}
        return done

    def refuse_use(self, stuck: Stuck) -> None:
        """Refuse the reads that got ``stuck``, or their copies, where they have other uses. An input that is padded for them is
        left as it came."""
        reads = stuck.reads & self._padded.keys() or stuck.reads
        why, found, copies = self._cause(stuck), refused_use(stuck), dict[fx.Node, fx.Node]()
        now = self._undo(reads)
        use = found.moved(now) if reads == stuck.reads else None
        if use is not None and use.shared:
            self._came.copy_once()
            copies = use.take_apart()
            self._uses[use.use] = why
        here = [now.get(node, node) for node in reads]
        self._note([copies.get(node, node) for node in here], *why)

    def refuse(self, nodes: Iterable[fx.Node], why: str) -> None:
        """Refuse ``nodes``, and undo all edits of this attempt."""
        now = self._undo(nodes)
        self._note({now.get(node, node) for node in nodes}, why)

    def give_up(self) -> None:
        """Undo all edits."""
        self.restorable.undo()
        self._came.undo()

    def _cause(self, stuck: Stuck) -> tuple[str, str]:
        """Why reads got ``stuck``, and the user's line. Where they meet what an earlier use has made of its copies, it is why
        that one refused them."""
        move, has_extents = stuck.flow.positions.move, stuck.flow.of
        for use, why in self._uses.items():
            made = {use, *descendants(use)}
            met = [i for i in stuck.node.all_input_nodes if i in made and is_tensor(i) and not has_extents(i)]
            if any(move(size) for node in met for size in node.meta["val"].shape):
                return why
        return stuck.reason, source_of(stuck.node)

    def _undo(self, refused: Iterable[fx.Node]) -> Mapping[fx.Node, fx.Node]:
        """Undo the edits of this attempt. The inputs that are padded for ``refused`` slices stay as they come from now on, and
        operators stay whole whose decompositions made some of these. Gives a map from the nodes of the graph to those that it
        has now, if there were edits."""
        self._unpadded |= {self._padded[node] for node in refused if node in self._padded}
        self._whole |= {self._made_of[node] for node in refused if node in self._made_of}
        now = self.restorable.undo()
        self._made_of = {}
        if now:
            self._whole = {now.get(node, node) for node in self._whole}
            self.origins = {now[node]: origin.moved(now) for node, origin in self.origins.items()}
            self.refused = {now.get(node, node): text for node, text in self.refused.items()}
            self._uses = {now.get(node, node): why for node, why in self._uses.items()}
        return now

    def _note(self, nodes: Iterable[fx.Node], why: str, at: str = "") -> None:
        """Note that those of ``nodes`` that are in the graph are refused, and begin the next attempt. ``at`` is the user's line
        of what stands in the way."""
        for node in (n for n in nodes if n not in self._padded and n.graph is self._gm.graph):
            self.refused[node] = why if at in ("", source_of(node)) else f"{why} (at {at})"
        self._pad()

    def _reads(self) -> list[tuple[SliceSite, Extent]]:
        positions = Positions(self._gm.graph, self.origins)
        with supposing():
            return list(reads_ahead(self._gm.graph, SiteFinder(self._gm.graph, positions, self.seen), self.refused))

    def _pad(self) -> None:
        graph, starts = self._gm.graph, [extent for _, extent in self._reads()]
        if self._windows is not None:
            starts = [self._windows.of(extent, graph) for extent in starts]
        with supposing():
            ahead = extents_ahead(starts)
        positions = Positions(graph, self.origins)
        self._padded = pad_inputs(graph, positions, ahead, self._unpadded, self.restorable.copy_once)
