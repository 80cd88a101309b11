"""Which SymInt inputs of a graph are positions, and where their numbers come from."""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.lengths import bounds_of_caches, lengths
from fxpass.analysis.positions import Origin
from fxpass.graph.inputs import buffer_of, dynamo_source
from fxpass.graph.values import is_tensor
from fxpass.torch_internals.dynamo.guards.sources import AggregateSource, PositionSource, user_text
from fxpass.torch_internals.dynamo.names import TensorPropertySource
from fxpass.torch_internals.symbols import free_symbols


def origins(gm: fx.GraphModule, variants: Collection[str] = (), moving: Set[Any] = frozenset()) -> dict[fx.Node, Origin]:
    """The position inputs of ``gm`` (in normal form, see `normal_form`).

    A SymInt input is a position unless it is the size or stride of a tensor input, or the name of its source is among the
    ``variants``. In a graph from Dynamo the source tells; in other graphs, a symbol that is in the shape of a tensor input is a
    size. A size that may be ``moving`` is a position where it is one of the `lengths` of caches, and one that equals a position
    plus a number where caches are sliced at it.
    """
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    sources = {n: dynamo_source(n) for n in placeholders}
    tensors = {sources[n]: n for n in placeholders if sources[n] is not None and is_tensor(n)}
    sizes = {s for n in placeholders if is_tensor(n) for s in free_symbols(n.meta["val"].shape)}
    found: dict[fx.Node, Origin] = {}
    for node in placeholders:
        if not isinstance(node.meta.get("val"), torch.SymInt):
            continue
        source = sources[node]
        if isinstance(source, PositionSource):
            found[node] = Origin(user_text(source), tensors.get(source.base), source.index)
        elif isinstance(source, AggregateSource) and source.extreme is not None:
            found[node] = Origin(user_text(source), tensors.get(source.base), extreme=source.extreme)
        elif source is not None and not isinstance(source, TensorPropertySource) and source.name not in variants:
            found[node] = Origin(user_text(source))
        elif source is None and not free_symbols(node.meta["val"]) <= sizes:
            found[node] = Origin(node.name)
    others = [n for n in placeholders if isinstance(sources[n], TensorPropertySource) and n not in found]
    of_caches = lengths(gm.graph, moving) if others else set()
    moved = {s for n in found for s in free_symbols(n.meta["val"])}
    bounds = bounds_of_caches(gm.graph, {n for n in others if free_symbols(n.meta["val"]) & moved})
    return found | {n: Origin(sources[n].name) for n in others if n in bounds or free_symbols(n.meta["val"]) & of_caches}


def name_of(placeholder: fx.Node) -> str:
    """What the user calls a graph input: ``L['kv_cache']._keys``, or the placeholder's name; of the buffer of one that grows,
    ``buffer(L['x'])``."""
    if (grows := buffer_of(placeholder)) is not None:
        return f"buffer({grows})"
    source = dynamo_source(placeholder)
    return placeholder.name if source is None else user_text(source)
