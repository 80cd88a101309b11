"""What is kept of a graph until somebody looks at it. It is enough to draw the graph, and takes a fraction of the time to make.

    add_4: i64[] = aten.add(select_int, 1)    ->    Kept("add_4", ..., aten.add.Tensor, ("select_int", 1), value, line, module)

The graph is not kept. Of nodes `without_tensors`, no tensor and no environment of shapes is, either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.source_lines import code_of, source_of
from fxpass.torch_internals.dynamo.inputs.origins import name_of

from .names import user_name
from .value_types import shape_or_kind

aten = torch.ops.aten

_REPEATED = {aten.arange, aten.scalar_tensor, aten.full, aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.unsqueeze,
             aten.logical_and, aten.logical_not, aten.sub, aten.add, aten.sym_size}  # fmt: skip
"""What masks are made with."""


class Use(str):
    """The name of a node, where another one takes it."""


class Kept(NamedTuple):
    """A node of a graph.

    value: the fake value; in a node `without_tensors`, its `value_types.shape_or_kind`.
    given: Dynamo's name of an input.
    source, code: the user's line.
    module: the modules that it was called in, the outermost first.
    equal: whether another node with an equal expression has the same value.
    """

    name: str
    op: str
    target: Any
    args: Any
    kwargs: Any
    uses: Sequence[str]
    value: Any
    given: str
    source: str
    code: str
    module: tuple[tuple[str, str], ...]
    equal: bool


def kept(graph: fx.Graph) -> list[Kept]:
    """The nodes of ``graph``, which may change from here on."""
    written = {aliases.root(w) for n in graph.nodes for w in aliases.written(n)}
    modules: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    return [_kept(node, written, modules) for node in graph.nodes]


def without_tensors(nodes: Sequence[Kept]) -> list[Kept]:
    """``nodes`` with shapes in the place of their fake values; sizes are written as the guards allow by now."""
    return [node._replace(value=shape_or_kind(node.value)) for node in nodes]


def _kept(node: fx.Node, written: set[fx.Node], modules: dict[tuple[str, ...], tuple[tuple[str, str], ...]]) -> Kept:
    stack = node.meta.get("nn_module_stack") or {}
    called = tuple(path for path, _ in stack.values())
    if called not in modules:
        modules[called] = _modules(stack)
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda used: Use(used.name))
    return Kept(
        node.name,
        node.op,
        node.target,
        args,
        kwargs,
        uses=[used.name for used in node.all_input_nodes],
        value=node.meta.get("val"),
        given=name_of(node) if node.op == "placeholder" else "",
        source=source_of(node),
        code=code_of(node),
        module=modules[called],
        equal=_is_repeated(node) and written.isdisjoint(map(aliases.root, (node, *node.all_input_nodes))),
    )


def _modules(stack: Mapping[str, tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    named = ((user_name(path), kind if isinstance(kind, str) else kind.__name__) for path, kind in stack.values())
    return tuple((path, kind.rpartition(".")[2]) for path, kind in named if path and path != "self")


def _is_repeated(node: fx.Node) -> bool:
    return getattr(node.target, "overloadpacket", None) in _REPEATED
