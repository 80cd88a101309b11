"""The part of a tensor that a graph works on, where all that it takes of it lies at one place.

    caches[2][:, :end], caches[2][:, end:end + 1] = k        {(0, 2)}: along dim 0, all of it is at 2
    caches.unbind(0)[2], caches.chunk(n)[2], caches[2:3]     the same
    caches[2][0] + caches[3][0]                              {}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from . import aliases
from .schemas import arguments_by_name

aten = torch.ops.aten
Places = frozenset[tuple[int, int]]
"""Each dim along which there is one place, with the place."""
_TAKEN = {aten.select.int: "index", aten.slice.Tensor: "start", aten.narrow.default: "start"}
_PIECES = (aten.unbind.int, aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)


def places_in(whole: fx.Node) -> Places:
    """The places at which all users of the tensor ``whole`` work. There are none where nothing is read of it.

    A place that is counted from the end is none that is known.
    """
    axes = [(dim, 0) for dim in range(whole.meta["val"].dim())]
    is_read = any(not aliases.written(user) for user in aliases.view_users(whole) if aliases.base(user) is None)
    return _places(whole, axes) if is_read else frozenset()


def _places(node: fx.Node, axes: Sequence[tuple[int, int]]) -> Places:
    """The places of all users of ``node``. Each of its ``axes`` is a dim of the whole, and the place of its first row."""
    found = [_places_of_part(part, place, dim, axes) for part, place, dim in _parts(node)]
    return frozenset.intersection(*found) if found else frozenset()


def _parts(node: fx.Node) -> Iterator[tuple[fx.Node, Any, int]]:
    """Each user of ``node``, or each piece that it is cut into, with the place of its first row and the dim; the place is None
    where it is no such part."""
    for user in node.users:
        given = arguments_by_name(user) if user.target in (*_TAKEN, *_PIECES) else {}
        dim = given.get("dim", 0)
        if user.target in _PIECES:
            rows = [1 if user.target is aten.unbind.int else piece.shape[dim] for piece in user.meta["val"]]
            yield from ((piece, sum(rows[: piece.args[1]]), dim) for piece in user.users)  # type: ignore[misc]
        else:
            place = given.get(_TAKEN.get(user.target, ""), 0 if given else None)
            yield user, place if given.get("step", 1) == 1 else None, dim


def _places_of_part(part: fx.Node, place: Any, dim: int, axes: Sequence[tuple[int, int]]) -> Places:
    if not isinstance(place, int) or place < 0:
        return frozenset()
    dim %= len(axes)
    whole_dim, first = axes[dim]
    is_row = part.meta["val"].dim() < len(axes)
    within = [*axes[:dim], *([] if is_row else [(whole_dim, first + place)]), *axes[dim + 1 :]]
    own = {(whole_dim, first + place)} if is_row or _is_one(part.meta["val"].shape[dim]) else set()
    return frozenset(own) | _places(part, within)


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1  # to compare a symbol would guard on it
