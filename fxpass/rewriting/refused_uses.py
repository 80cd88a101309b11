"""A use that refuses rows takes rows of its own, so that all other uses of them can be rewritten.

    k = buf[:, :, :n]                           k, own_k = buf[:, :, :n], buf[:, :, :n]
    at = arange(n)                              at, own_at = arange(n), arange(n)
    y = attention(q, k, v, at <= s)    ->       y = attention(q, k, v, at <= s)
    return y, k * 2, at                         return y, own_k * 2, own_at

The ops between a read, or a tensor that is made to the size of one, and the use that refuses it are copied where something else
uses them, too. It is the copies that are refused. A copy stands right behind its original, so it reads the same from memory.

Not copied is what is written to, draws random numbers or takes long (a product): all uses of it are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Iterator, Mapping, Set

from torch import fx

from fxpass.analysis.follow import Stuck
from fxpass.graph import aliases
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of


@dataclasses.dataclass(frozen=True)
class RefusedUse:
    """The ``use`` that refuses its ``operands``; the ``way`` to it, which are the operands and the ops that lead to them; and
    the ops among these that are ``shared`` with other uses. All are in order."""

    use: fx.Node
    operands: list[fx.Node]
    way: list[fx.Node]
    shared: list[fx.Node]

    def moved(self, now: Mapping[fx.Node, fx.Node]) -> RefusedUse | None:
        """The same in the graph to whose nodes ``now`` maps; None if some of them are not there."""
        if not now:
            return self
        if not now.keys() >= {self.use, *self.way}:
            return None
        return RefusedUse(now[self.use], *([now[n] for n in nodes] for nodes in (self.operands, self.way, self.shared)))

    def take_apart(self) -> dict[fx.Node, fx.Node]:
        """Copy what is shared for this use alone. Gives a map from each node to its copy."""
        graph, copies = self.use.graph, dict[fx.Node, fx.Node]()
        inputs = graph.find_nodes(op="placeholder")
        with faking(mode_of([n.meta["val"] for n in inputs])):
            for node in self.shared:
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: copies.get(n, n))
                with graph.inserting_after(node):
                    copies[node] = made = call(graph, node.target, *args, **kwargs)
                made.meta = {**node.meta, "val": made.meta["val"]}
        for node, made in copies.items():
            for user in set(node.users).intersection(self.way).difference(self.shared):
                user.replace_input_with(node, made)
            if node in self.operands:
                self.use.replace_input_with(node, made)
        return copies


def refused_use(stuck: Stuck) -> RefusedUse:
    """The use at which rows got ``stuck``. Results that lie in one memory are one use, and so is a view that leads to one."""
    use, operands, graph = stuck.node, stuck.operands, stuck.node.graph
    memory = _memories(operands) - _memories(graph.find_nodes(op="placeholder"))
    if use.op != "output":
        memory &= aliases.storages(use)
    if together := [r for r in graph.output_node().all_input_nodes if aliases.storages(r) & memory]:
        operands = list(dict.fromkeys([*(operands if use.op == "output" else ()), *together]))
        use = graph.output_node()
    leads = set(_way(stuck, operands, memory))
    way = [node for node in graph.nodes if node in leads]
    written, shared = aliases.writes_by_storage(graph), set[fx.Node]()
    for node in reversed(way):
        own = leads | {use} if node in operands else leads
        has_others = not own.issuperset(node.users) or not shared.isdisjoint(node.users)
        if has_others and _may_be_copied(node, written):
            shared.add(node)
    return RefusedUse(use, operands, way, [node for node in way if node in shared])


def _way(stuck: Stuck, operands: Iterable[fx.Node], memory: Set[int]) -> Iterator[fx.Node]:
    """The nodes by which the rows, and all that lies in ``memory``, have come to ``operands``."""
    seen: set[fx.Node] = set()
    todo = list(operands)
    while todo:
        node = todo.pop()
        is_read = any(extent.reads & stuck.reads for extent in stuck.flow.of(node).values())
        if node not in seen and (is_read or aliases.storages(node) & memory):
            seen.add(node)
            todo += node.all_input_nodes
            yield node


def _may_be_copied(node: fx.Node, written: Container[int | None]) -> bool:
    """Whether ``node`` does nothing but make a tensor, in memory that is never ``written``, or a view."""
    own = aliases.storages(node) - _memories(node.all_input_nodes)
    return not aliases.is_impure(node) and not is_heavy(node) and not any(memory in written for memory in own)


def _memories(nodes: Iterable[fx.Node]) -> set[int]:
    return {memory for node in nodes for memory in aliases.storages(node)}
