"""Results of one dtype leave a recording as one tensor, and so by one copy.

    core        return df, loc, scale         ->        return cat([df.reshape(-1), loc.reshape(-1), scale.reshape(-1)])
    outside     three copies                            one copy, split

The pieces of the copy share memory, but no version counter. Each starts at an address that is as aligned as a new tensor's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import fx

from fxpass.execute.partition.split import Part

aten = torch.ops.aten
ALIGNED = 16
"""Bytes that the start of each piece is a multiple of."""


class Pack:
    """The results ``nodes`` of a part, which are of one dtype, as the one result ``packed``. The last may be of any length."""

    def __init__(self, nodes: Sequence[fx.Node], packed: fx.Node) -> None:
        self.nodes, self.packed = list(nodes), packed
        self._shapes = [(-1,) if _is_open(n) else tuple(n.meta["val"].shape) for n in nodes]
        self._sizes = [math.prod(shape) for shape in self._shapes if shape != (-1,)]
        self._whole = sum(self._sizes) if len(self._sizes) < len(self.nodes) else None

    def copies(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """Copies of the results that ``packed`` holds."""
        sizes = self._sizes if self._whole is None else [*self._sizes, packed.numel() - self._whole]
        pieces = torch.unsafe_split_with_sizes(packed.clone(), sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


def pack(parts: Sequence[Part], groups: Sequence[Sequence[fx.Node]]) -> list[Pack]:
    """Pack results of the static ``parts``, which are edited in place. ``groups`` are the results, grouped by shared memory."""
    found = []
    alone = [group[0] for group in groups if len(group) == 1]
    for part in parts:
        others = {i for other in parts if other is not part for i in other.inputs}
        alike: defaultdict[torch.dtype, list[fx.Node]] = defaultdict(list)
        for node in (n for n in alone if n in part.outputs and n not in others and part.static and _fits(n)):
            alike[node.meta["val"].dtype].append(node)
        for dtype in {n.meta["val"].dtype: 0 for n in alone if n in part.outputs and part.static and _is_open(n)}:
            alike[dtype].append(next(n for n in alone if n in part.outputs and _is_open(n) and n.meta["val"].dtype is dtype))
        found += [_pack(part, nodes) for nodes in alike.values() if len(nodes) > 1]
    return found


def _is_open(node: fx.Node) -> bool:
    """Whether ``node`` has one dim, which goes with a capacity (`rewriting.outside.dense`)."""
    shape = node.meta["val"].shape
    return len(shape) == 1 and not isinstance(shape[0], int)


def _fits(node: fx.Node) -> bool:
    """Whether a copy of ``node`` has a fixed size and is contiguous, as a copy of an expanded tensor is."""
    value = node.meta["val"]
    if not all(isinstance(s, int) for s in (*value.shape, *value.stride())) or not torch.empty_like(value).is_contiguous():
        return False
    return value.numel() > 0 and value.numel() * value.element_size() % ALIGNED == 0


def _pack(part: Part, nodes: Sequence[fx.Node]) -> Pack:
    graph, output = part.gm.graph, part.gm.graph.output_node()
    given = dict(zip(part.outputs, output.args[0], strict=True))  # type: ignore[arg-type]
    value = torch.cat([n.meta["val"].reshape(-1) for n in nodes])
    with graph.inserting_before(output):
        flat = []
        for node in nodes:
            flat.append(graph.call_function(aten.reshape.default, (given[node], [-1])))
            flat[-1].meta["val"] = node.meta["val"].reshape(-1)
        packed = graph.call_function(aten.cat.default, (flat,))
    packed.meta["val"] = value
    outer = fx.Graph().placeholder("packed")
    outer.meta["val"] = value
    part.outputs[:] = [*(n for n in part.outputs if n not in nodes), outer]
    output.args = (tuple((given | {outer: packed})[n] for n in part.outputs),)
    part.gm.recompile()
    return Pack(nodes, outer)
