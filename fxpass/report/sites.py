"""The report's sites are made of the rewrite's decisions on nodes, with the bytes that each reads per step."""

from __future__ import annotations

import linecache

import torch
from torch import fx

from fxpass.graph.expression_texts import expression_text
from fxpass.graph.insertion import name_before
from fxpass.graph.numbers import hint, size_in_bytes
from fxpass.graph.source_lines import code_of, source_of, with_line
from fxpass.index_tensors.table import Table
from fxpass.rewriting import Rewritten
from fxpass.rewriting.decisions import Decision

from .names import input_name, user_name
from .site import Cost, Site
from .value_types import type_of


def sites_of(rewritten: Rewritten) -> list[Site]:
    """The sites of a rewritten graph."""
    return [
        Site(
            kind=d.kind,
            buffer="" if d.buffer is None else input_name(d.buffer),
            dim=d.dim,
            position=d.position,
            source=source_of(with_line(d.node)),
            decision="rewritten" if d.rewritten else "refused",
            reason=d.reason,
            code=code_of(with_line(d.node)),
            size="" if d.buffer is None else type_of(d.buffer.meta.get("val")),
            chain=tuple(_link(text, node) for text, node in d.chain),
            cost=_cost(d),
            node=name_before(d.node),
        )
        for d in rewritten.decisions
    ]


def predicate_sites(gm: fx.GraphModule) -> list[Site]:
    """The branches and assertions on positions that capture turned into guards."""
    return [
        Site("predicate", "", None, position, source, "rewritten", code=_line(source))
        for position, source in Table.of(gm.graph).predicates
    ]


def _line(source: str) -> str:
    """The text of the line at ``file:line``."""
    file, _, number = source.rpartition(":")
    return linecache.getline(file, int(number)).strip() if number.isdecimal() else ""


def _link(text: str, node: fx.Node) -> str:
    value, source = expression_text(node), source_of(node)
    said = value if text == value else f"{user_name(text)} = {value}"
    return f"{said} ({source})" if source else said


def _cost(decision: Decision) -> Cost | None:
    """The bytes that a read takes at the position that the graph was traced for; None for other sites."""
    if decision.kind != "read" or not isinstance(decision.base, torch.Tensor):
        return None
    before = size_in_bytes(decision.rows)
    if decision.taken is None:
        return Cost(before, before, 0)
    taken, all_rows = (int(hint(size) or 0) for size in (decision.taken, decision.base.shape[decision.dim]))
    return Cost(before, size_in_bytes(decision.base) * taken // max(all_rows, 1), taken)
