"""A small boolean mask that takes rows out becomes the places that it names, as many as the host counts.

    lens[active] += 1                    places = active.argsort(descending=True, stable=True)[:s0]
                                         lens[places] += 1
    k[active, lens[active]] = x          k[places, lens[places]] = x
    active.nonzero()                     places.unsqueeze(1)

Stock breaks the graph, as it does not know how many rows there are. Here ``s0`` is a number like any other that small inputs
make (`expressions`), and the places are a slice at a position. A mask that says where a single number is put stays a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import guarded
from fxpass.graph.schemas import memory_of
from fxpass.graph.values import example_value
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.names import wrap_fx_proxy
from fxpass.torch_internals.dynamo.variables.numbers import formed

from . import indexing

_NONZERO = ("nonzero", torch.nonzero, "argwhere", torch.argwhere)
_PUT = ("index_put", "index_put_", torch.index_put, torch.index_put_)
_SELECTED = ("masked_select", torch.masked_select)


def with_places(tx: Any, target: Any, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """``operands``, with places in the index instead of masks of one dim where ``target`` takes or puts what an index names."""
    if len(operands) < 2 or not (indexing.is_indexing(target) or target in _PUT):
        return operands
    tensor, index, *value = operands
    items = index if isinstance(index, tuple) else tuple(index) if target in _PUT else (index,)
    if not any(map(_is_mask, items)) or (rank := indexing.rank(tensor)) is None:
        return operands
    dims = indexing.dims(items, rank)
    if dims is None or value and not _takes_places(items, value[0]):
        return operands
    placed = []
    for item, dim in zip(items, dims, strict=True):
        places = _places(tx, item) if _is_mask(item) and _fits(item, tensor, dim) else None
        placed.append(item if places is None else places)
    return tensor, placed[0] if len(placed) == 1 and target not in _PUT else tuple(placed), *value


def _takes_places(items: Sequence[Any], value: Any) -> bool:
    """Whether ``value`` is put at places rather than at the masks among ``items``: places of other tensors stand beside, or
    those of the mask are known, as rows have been taken there."""
    first, *others = [item for item in items if indexing.rank(item)]
    return bool(others) or bool(indexing.rank(value)) and _key(first) in Table.of(first.node.graph).places


def without_mask(tx: Any, target: Any, operands: tuple[Any, ...], named: dict[str, Any]) -> tuple[str, Any] | None:
    """Method and operands that give what ``target(*operands, **named)`` takes out by a mask, or the places of a mask; None for
    any other op, and where it is not known how many they are."""
    if len(operands) == 2 and target in _SELECTED and not named:
        tensor, mask = operands
        places = _places(tx, mask) if _is_mask(mask) and indexing.rank(tensor) == 1 and _fits(mask, tensor, 0) else None
        return None if places is None else ("index_select", (tensor, 0, places))
    is_tuple = target is torch.where or named.get("as_tuple") is True
    if len(operands) != 1 or not named.keys() <= {"as_tuple"} or target not in (torch.where, *_NONZERO):
        return None
    places = _places(tx, operands[0]) if _is_mask(operands[0]) else None
    if places is None:
        return None
    return ("unbind", (_call(tx, "unsqueeze", places, 0),)) if is_tuple else ("unsqueeze", (places, 1))


def _places(tx: Any, mask: fx.Proxy) -> fx.Proxy | None:
    """The places of ``mask``, in order; None where it is not known how many they are. They are computed once, until the mask
    is written."""
    table, key = Table.of(mask.node.graph), _key(mask)
    if (made := table.places.get(key)) is None or made.node._erased:
        count = formed(tx, mask.node, form="int({}.sum())")
        if count is None:
            return None
        order = _call(tx, "argsort", mask, descending=True, stable=True)
        made = table.places[key] = _call(tx, "narrow", order, 0, 0, count.as_proxy())
    return made


def _key(mask: fx.Proxy) -> tuple[fx.Node, int]:
    """``mask`` as it is now: its node, and how many ops have written to its memory."""
    memory, writes = memory_of(example_value(mask)), Table.of(mask.node.graph).writes()
    return mask.node, sum(memory_of(target.meta.get("example_value")) == memory for _, target in writes)


def _call(tx: Any, method: str, *operands: Any, **named: Any) -> fx.Proxy:
    return wrap_fx_proxy(tx, tx.output.create_proxy("call_method", method, operands, named)).as_proxy()  # type: ignore


def _fits(mask: fx.Proxy, tensor: fx.Proxy, dim: int) -> bool:
    """Whether ``mask`` is as long as ``tensor`` along ``dim``, which may add a guard. Any other mask is an error in eager."""
    return guarded(example_value(mask).shape[0] == example_value(tensor).shape[dim])


def _is_mask(value: Any) -> bool:
    return indexing.rank(value) == 1 and example_value(value).dtype is torch.bool
