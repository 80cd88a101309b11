"""Ints that only tell how large new tensors are.

    x.repeat_interleave(n, 0); torch.ones(4, n)     ``n`` says how large they are
    k[:, n : n + 1] = x; k[:, :n]; k[:, -n:]        no: a place, at which rows are written or up to which they are read
    k[:, :n] + torch.ones(n)                        no: where ``n`` is a place as well, tensors are as long as what is read
    x * n                                           no: a factor can be a 0-d tensor
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass.graph.bounds import sliced_axis
from fxpass.graph.numbers import symbols
from fxpass.graph.values import tensors_of


def only_sizes(graph: fx.Graph, ints: Set[Any]) -> set[Any]:
    """The symbols among ``ints`` that occur in sizes of tensors of ``graph``, and in no bound of a slice."""
    places: set[Any] = set()
    sizes: set[Any] = set()
    for node in graph.nodes:
        sizes |= {s for tensor in tensors_of(node) for size in tensor.shape for s in symbols(size)}
        if sliced_axis(node) is not None:
            places |= {s for i in node.all_input_nodes for s in _of_number(i)}
    return (sizes - places) & ints


def _of_number(node: fx.Node) -> set[Any]:
    value = node.meta.get("val")
    return set() if isinstance(value, torch.Tensor) else symbols(value)
