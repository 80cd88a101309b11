"""What the rewrite knows of nodes that it has made, and later stages ask for: a table beside the graph."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import fx


@dataclasses.dataclass(frozen=True)
class Attention:
    """What an attention over a whole buffer computes, in terms of what it was before the operands were filled and masked.

    keys, values: the buffers, of full size. length: how many rows of them are valid, a 0-d tensor. mask: the model's own.
    """

    keys: fx.Node
    values: fx.Node
    length: Any
    mask: fx.Node | None
    is_causal: bool
    scale: Any


@dataclasses.dataclass
class Marks:
    """``attentions`` by the node that computes each; ``in_bounds``: the `index_copy_` whose rows lie one after the other and
    are kept within the buffer by a position's guard."""

    attentions: dict[fx.Node, Attention] = dataclasses.field(default_factory=dict)
    in_bounds: set[fx.Node] = dataclasses.field(default_factory=set)
