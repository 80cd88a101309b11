"""A graph as a networkx graph of plain text, from which its code and its picture are made.

A node is called what fx calls it, and stands in the order of the program. Its attributes:

kind        "input", "owned" (an input that belongs to a module), "op" or "output"
label       what the user calls an input; of another node its name
call        the expression, with ``{name}`` for what other nodes give: ``aten.add({select_int}, 1)``
op          the operator alone: ``aten.add``
type        dtype and shape: ``f32[2, s0, 8]``
source      ``file:line`` of the user's code, and ``code``, the text of that line; empty when unknown
module      the modules that it was called in, the outermost first: ``(("layers.0", "Layer"), ("layers.0.mlp", "MLP"))``
equal       whether another node with the same expression is the same value: what masks are made with
part        the part of the graph that it runs in, once that is cut; empty before
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import networkx as nx

from fxpass.graph.bounds import TO_THE_END
from fxpass.graph.schemas import is_operator

from .kept_nodes import Kept, Use
from .lazy import Lazy
from .names import is_owned, user_name
from .value_types import type_text


@dataclasses.dataclass
class Drawings:
    """The graphs of a report, each drawn when it is asked for: before the rewrite, after it, and the parts that the latter is
    cut in, with their names and whether they are static."""

    before: Lazy[nx.DiGraph] = dataclasses.field(default_factory=lambda: Lazy(nx.DiGraph))
    after: Lazy[nx.DiGraph] = dataclasses.field(default_factory=lambda: Lazy(nx.DiGraph))
    parts: Sequence[tuple[str, bool, Lazy[nx.DiGraph]]] = ()

    def placed(self) -> nx.DiGraph:
        """The graph after the rewrite, with the part that each op runs in."""
        graph = self.after()
        for part, _, drawing in self.parts:
            for name, kind in drawing().nodes(data="kind"):
                if kind == "op" and name in graph:
                    graph.nodes[name]["part"] = part
        return graph

    def static(self) -> list[nx.DiGraph]:
        """The static parts."""
        return [part() for _, static, part in self.parts if static]


def later(nodes: Sequence[Kept]) -> Lazy[nx.DiGraph]:
    """The graph of ``nodes``, drawn when it is asked for."""
    return Lazy(functools.partial(drawn, nodes))


def drawn(nodes: Iterable[Kept]) -> nx.DiGraph:
    """The graph of ``nodes``, as above."""
    graph = nx.DiGraph()
    labels: set[str] = set()
    for node in nodes:
        label = _label(node, labels)
        labels.add(label)
        graph.add_node(
            node.name,
            kind=_kind(node),
            label=label,
            call=_call(node),
            op=_operator(node),
            type=type_text(node.value),
            source=node.source,
            code=node.code,
            module=node.module,
            equal=node.equal,
            part="",
        )
        graph.add_edges_from((used, node.name) for used in node.uses)
    return graph


def _kind(node: Kept) -> str:
    if node.op == "placeholder":
        return "owned" if is_owned(node.given) else "input"
    return "output" if node.op == "output" else "op"


def _label(node: Kept, taken: Collection[str]) -> str:
    label = user_name(node.given) if node.given else node.name
    return node.name if label in taken else label


def _call(node: Kept) -> str:
    """The expression of ``node``, a format with the names of the nodes that it uses: ``aten.add({mul}, 1)``."""
    if node.op == "placeholder":
        return "input"
    if node.op == "output":
        return f"return {_argument(node.args[0])}"
    if node.op == "get_attr":
        return f"self.{node.target}"
    arguments = [_argument(a) for a in node.args] + [f"{k}={_argument(v)}" for k, v in node.kwargs.items()]
    return f"{_operator(node)}({', '.join(arguments)})"


def _operator(node: Kept) -> str:
    """What ``node`` calls: ``aten.add``, ``aten.sum.dim_IntList``; of what calls nothing, its kind."""
    if node.op != "call_function":
        return node.op
    name = str(node.target) if is_operator(node.target) else getattr(node.target, "__name__", str(node.target))
    return re.sub(r"\.(default|Tensor|int)$", "", name)


def _argument(value: Any) -> str:
    if isinstance(value, Use):
        return f"{{{value}}}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_argument, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    text = "END" if isinstance(value, int) and value == TO_THE_END else str(value)
    return text.replace("{", "{{").replace("}", "}}")
