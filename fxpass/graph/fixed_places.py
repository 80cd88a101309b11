"""The part of a tensor that a graph works on, where all that it takes of it lies at one place.

    caches[2][:, :end], caches[2][:, end:end + 1] = k        {(0, 2)}: along dim 0, all of it is at 2
    caches[2][0] + caches[3][0]                              {}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from . import aliases

Places = frozenset[tuple[int, int]]
"""Each dim along which there is one place, with the place."""


def places_in(whole: fx.Node) -> Places:
    """The places at which all users of the tensor ``whole`` work. There are none where nothing is read of it.

    A place that is counted from the end is none that is known.
    """
    dims = range(whole.meta["val"].dim())
    is_read = any(not aliases.written(user) for user in aliases.view_users(whole) if aliases.base(user) is None)
    return _places(whole, dims) if is_read else frozenset()


def _places(node: fx.Node, dims: Sequence[int]) -> Places:
    """The places of all users of ``node``, the dims of which are the ``dims`` of the whole."""
    found = [_places_of_user(user, dims) for user in node.users]
    return frozenset.intersection(*found) if found else frozenset()


def _places_of_user(user: fx.Node, dims: Sequence[int]) -> Places:
    if user.target is not torch.ops.aten.select.int:
        return frozenset()
    _, dim, place = user.args
    if not isinstance(place, int) or not isinstance(dim, int) or place < 0:
        return frozenset()
    dim %= len(dims)
    return frozenset({(dims[dim], place)}) | _places(user, [d for i, d in enumerate(dims) if i != dim])
