"""What the rewrite tells later stages about the nodes that it has made."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Attention:
    """An attention over a whole buffer, as it was before its operands were filled and its mask was joined with the length.

    keys, values: the buffers, of full size.
    length: how many of their rows are valid, a 0-d int64 tensor.
    mask: the mask that the model has given, or None.
    """

    keys: fx.Node
    values: fx.Node
    length: Any
    mask: fx.Node | None
    is_causal: bool
    scale: Any


@dataclasses.dataclass
class Marks:
    """Marks on nodes of one graph.

    attentions: the `Attention` that each node computes.
    in_bounds: every `index_copy_` and `index_put_` that writes consecutive rows, which a guard keeps within the buffer.
    """

    attentions: dict[fx.Node, Attention] = dataclasses.field(default_factory=dict)
    in_bounds: set[fx.Node] = dataclasses.field(default_factory=set)


def given_to(write: fx.Node) -> tuple[fx.Node, int, fx.Node, fx.Node]:
    """The buffer, the dim, the slots and the rows of ``write``, an `index_copy_`, or an `index_put_` along one dim."""
    arguments: Any = write.args
    if write.target is aten.index_copy_.default:
        return arguments
    buffer, places, rows = arguments
    return buffer, len(places) - 1, places[-1], rows
