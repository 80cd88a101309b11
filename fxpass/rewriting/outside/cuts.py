"""Results that are as long as a position leave the graph at full size, and are cut outside of it.

    p = softmax(q @ k[:, :, :end].mT)          return y, p[.., :end]
    return p @ v[:, :, :end], p                ->     p leaves the core for [.., :S], and is cut in each call

What needs a product could otherwise leave the graph only if that product left the core, or if a part came behind the core for
it. Views of it that are results too are taken of what is cut. A result of light ops alone is made of rows of its own
(`refused_uses`), unless there are buffers for what grows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import fx

from fxpass.analysis.extents import Extents
from fxpass.analysis.positions import Positions
from fxpass.graph import aliases
from fxpass.graph.extract import ancestors
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.layouts import dense_order, is_contiguous
from fxpass.graph.numbers import symbols

from .around import Around
from .formulas import formula
from .viewed_results import ViewOf, viewed_results


@dataclasses.dataclass
class Cuts:
    """The results that are cut outside of a graph, as in `Around`.

    given: the number of inputs that the graph came with, which tell the lengths.
    has_buffers: whether some of them grow, and have buffers.
    viewed: the results that the graph does not give, since they are views of others.
    """

    given: int
    has_buffers: bool = False
    viewed: dict[int, ViewOf] = dataclasses.field(default_factory=dict)
    cuts: dict[int, tuple[tuple[int, Any], ...]] = dataclasses.field(default_factory=dict)
    orders: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def beside_views(cls, graph: fx.Graph, origins: Iterable[fx.Node]) -> Cuts:
        """Those of a graph without buffers, whose positions are ``origins``. Views of what is cut are results no longer."""
        output, given = graph.output_node(), graph.find_nodes(op="placeholder")
        moving = {symbol for origin in origins for symbol in symbols(origin.meta["val"])}
        results, viewed = viewed_results(output.args[0], moving, _needs_a_product)  # type: ignore[arg-type]
        output.args = (tuple(results),)
        return cls(len(given), viewed=viewed)

    def forget(self) -> None:
        """Forget what an attempt has found."""
        self.cuts, self.orders = {}, {}

    def beside(self, around: Around) -> Around:
        """``around`` with these cuts."""
        return dataclasses.replace(around, cuts=self.cuts, orders=self.orders, viewed=self.viewed)

    def leave(self, result: fx.Node, extents: Extents, positions: Positions) -> bool:
        """Whether ``result`` is cut outside: it has memory of its own, and inputs tell the lengths of its ``extents``."""
        graph, order = result.graph, dense_order(result.meta["val"])
        (results,) = graph.output_node().args
        given = graph.find_nodes(op="placeholder")[: self.given]
        others = [n for n in (*graph.output_node().all_input_nodes, *given) if n is not result]
        if order is None or any(aliases.storages(n) & aliases.storages(result) for n in others):
            return False
        if not self.has_buffers and not _needs_a_product(result):
            return False
        try:
            cuts = tuple((dim, formula(extent.length, given, positions.resolve)) for dim, extent in extents.items())
        except ValueError:
            return False
        places = [i for i, r in enumerate(results) if r is result]  # type: ignore[arg-type]
        self.cuts.update(dict.fromkeys(places, cuts))
        if not is_contiguous(result.meta["val"]):
            self.orders.update(dict.fromkeys(places, order))
        return True


def _needs_a_product(result: fx.Node) -> bool:
    return any(map(is_heavy, ancestors(result)))
