"""Following extents: each node in program order, by the rule of its operator, up to the first one that cannot be followed."""

from __future__ import annotations

import dataclasses
import logging
import operator
from collections.abc import Callable, Container, Iterable
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import NoRule, Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import slice_arguments
from fxpass.graph.schemas import is_tagged

from . import rules  # noqa: F401  (registers)
from .extents import RULES, Extent, Extents, Flow, Leave, no_result
from .positions import Positions

aten = torch.ops.aten
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Stuck:
    """The extents of ``reads``, which ``flow`` has brought to the ``operands`` of ``node``, cannot be followed past it: its
    rule refuses, or there is none."""

    node: fx.Node
    operands: list[fx.Node]
    flow: Flow
    reads: frozenset[fx.Node]
    reason: str
    no_rule: bool = False


def follow(
    graph: fx.Graph,
    positions: Positions,
    begin: Callable[[fx.Node, Flow], Extents | None],
    ahead: Iterable[Extent] = (),
    refuse_copy: Callable[[fx.Node], None] = lambda node: None,
    leave: Leave = no_result,
    steady: Callable[[Any, fx.Node], Any] = lambda size, node: None,
    refused: Container[fx.Node] = (),
) -> Flow | Stuck:
    """Follow the extents of ``graph``, up to the first node that they cannot be followed past.

    Args:
        begin: ``begin(node, flow)`` gives the extents that a read starts at ``node``, or None. It is asked in program order:
            whether a slice is a site may depend on the extents before it.
        ahead: extents that reads further down will start. A mask is often made to the size of a read before the read.
        refuse_copy, leave, steady: see `Flow`.
        refused: the tensors made to the size of a read that keep this size.
    """
    flow = Flow(graph, positions, lengths=list(ahead), refuse_copy=refuse_copy, leave=leave, steady=steady)
    for node in graph.nodes:
        operands = _operands(node, flow)
        carried = [e for i in operands for e in flow.of(i).values()]
        carried += [flow.parts[found[0]].extent for w in aliases.written(node) if (found := flow.part_of(w))]
        try:
            begun = begin(node, flow)
            if begun is not None:
                flow.extents[node] = {**_apply(node, flow, sliced=begun), **begun} if carried else begun
                flow.lengths += begun.values()
            elif node in refused and is_factory(node):
                continue
            elif carried:
                flow.extents[node] = _apply(node, flow)
            elif made := _made_to_size(node, flow):
                flow.extents[node] = made
        except Refusal as refusal:
            reads: frozenset[fx.Node] = frozenset().union(*(e.reads for e in carried))
            if reads:
                return Stuck(node, operands, flow, reads, str(refusal), isinstance(refusal, NoRule))
        except Exception as error:
            reads = frozenset().union(*(e.reads for e in carried))
            if not reads:
                raise
            logger.warning("kvfix: the rule for %s failed", node.target, exc_info=error)
            failed = f"the rule for {node.target}: {type(error).__name__}: {error}"
            return Stuck(node, operands, flow, reads, reasons.SITE_FAILED.text(error=failed))
    return flow


def _operands(node: fx.Node, flow: Flow) -> list[fx.Node]:
    """The operands with extents that ``node`` has to deal with together. Of the results, these are the first that may not leave
    the graph at full size, and those that lie in its memory."""
    operands = [i for i in node.all_input_nodes if flow.of(i)]
    if node.op != "output":
        return operands
    kept = [i for i in operands if not flow.leave(i, flow.of(i), flow.positions)]
    return [i for i in kept if aliases.storages(i) & aliases.storages(kept[0])]


def _apply(node: fx.Node, flow: Flow, sliced: Extents | None = None) -> Extents:
    if sliced is not None and any(d in flow.of(node.args[0]) for d in sliced):
        raise Refusal(reasons.AXIS_SPLIT, how="is sliced again")
    if node.op == "output":
        raise Refusal(reasons.LEAVES)
    if node.target is aten.sym_size.int:
        source, dim = node.args
        extent = flow.of(source).get(dim % source.meta["val"].dim())
        if extent is not None:
            flow.positions.alias(node, extent.length)
        return {}
    if node.target is aten.sym_numel.default:
        return _counted(node, flow)
    if any(map(flow.part_of, aliases.written(node))):
        return RULES["parts"](node, flow)
    if any(flow.of(target) and _is_part(target, flow) for target in aliases.written(node)):
        return RULES["stores"](node, flow)
    known = RULES.get(node.target)
    if known is None and _is_pointwise(node.target):
        known = RULES["pointwise"]
    if known is None:
        raise NoRule(reasons.NO_RULE, op=node.target)
    return known(node, flow)


def _counted(node: fx.Node, flow: Flow) -> Extents:
    """The number of elements of a tensor is the product of what is valid along each of its dims."""
    source = node.args[0]
    sizes = source.meta["val"].shape  # type: ignore[union-attr]
    factors = [extent.length if (extent := flow.of(source).get(d)) else flow.steady(s, node) for d, s in enumerate(sizes)]
    if None in factors:
        raise NoRule(reasons.NO_RULE, op=node.target)
    total = factors[0]
    for factor in factors[1:]:
        total = flow.derive(node, operator.mul, total, factor)
    flow.positions.alias(node, total)
    return {}


def _is_pointwise(target: Any) -> bool:
    """Whether each element of the result depends on its own place alone. Random numbers depend on how many are drawn."""
    return is_tagged(target, torch.Tag.pointwise) and not is_tagged(target, torch.Tag.nondeterministic_seeded)


def is_factory(node: fx.Node) -> bool:
    """Whether the operator of ``node`` makes a tensor of some size, and of nothing else."""
    return ("factory", node.target) in RULES


def _made_to_size(node: fx.Node, flow: Flow) -> Extents:
    """The extents of a tensor that is made to a size that depends on a position (`ones`, `arange`, ...)."""
    if not is_factory(node) or not any(i in flow.positions for i in node.all_input_nodes):
        return {}
    return RULES["factory", node.target](node, flow)


def _is_part(view: fx.Node, flow: Flow) -> bool:
    """Whether ``view`` is a part, cut at a position, of memory that holds more, which a write to it must not touch."""
    while (base := aliases.base(view)) is not None:
        if view.target in (aten.slice.Tensor, aten.narrow.default):
            dim = slice_arguments(view)[1] % view.meta["val"].dim()
            if flow.of(view).get(dim) is not flow.of(base).get(dim):
                return True
        view = base
    return False
