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
    """The places at which all users of the tensor ``whole`` work. There are none where nothing is read of it."""
    dims = range(whole.meta["val"].dim())
    is_read = any(not aliases.written(user) for user in aliases.view_users(whole) if aliases.base(user) is None)
    return _places(whole, dims) if is_read else frozenset()


def _places(node: fx.Node, dims: Sequence[int]) -> Places:
    """The places of all users of ``node``, the dims of which are the ``dims`` of the whole."""
    found = [_places_of_user(node, user, dims) for user in node.users]
    return frozenset.intersection(*found) if found else frozenset()


def _places_of_user(node: fx.Node, user: fx.Node, dims: Sequence[int]) -> Places:
    if user.target is not torch.ops.aten.select.int or not all(isinstance(arg, int) for arg in user.args[1:]):
        return frozenset()
    dim, place = user.args[1] % len(dims), user.args[2] % node.meta["val"].shape[user.args[1]]  # type: ignore[operator,index]
    rest = [d for i, d in enumerate(dims) if i != dim]
    return frozenset({(dims[dim], place)}) | _places(user, rest)
