"""Which values must agree to the last bit: those that are only moved, and not computed.

    cache[:, s:s + 1] = k        with k an input        ->        bitwise
    cache[:, s:s + 1] = w @ x                           ->        within the dtype's tolerance

A graph in which nothing was rewritten computes as before, unless Inductor compiles it. Integers are always exact.
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.options import Options

aten = torch.ops.aten

_MOVES = {
    aten.clone.default,
    aten.contiguous.default,
    aten.index_select.default,
    aten.zeros_like.default,
}
"""Operators, views aside, whose results hold what their operand holds, or zeros."""
_STORED = {aten.copy_.default: 1, aten.index_copy_.default: 3, aten.index_put_.default: 2}
"""The argument of which a copy takes what it stores."""


def is_exact(settings: Options, moved: set[int] | None, inputs: int) -> tuple[bool, list[bool]]:
    """Whether results, and what each of the inputs holds after a call, must be equal bitwise.

    ``moved`` is that of `moved_only`; None where nothing was rewritten: only Inductor computes anything in another way then.
    """
    if moved is None and settings.compiler != "inductor":
        return True, [True] * inputs
    return False, [i in (moved or ()) for i in range(inputs)]


def moved_only(gm: fx.GraphModule) -> set[int]:
    """The inputs of ``gm``, in normal form, into which only the contents of other such inputs are written."""
    inputs = gm.graph.find_nodes(op="placeholder")
    stores = [(aliases.root(w), _stored(node, w)) for node in gm.graph.nodes for w in aliases.written(node)]
    computed: set[fx.Node] = set()
    before = -1
    while len(computed) > before:
        before = len(computed)
        computed |= {target for target, stored in stores if any(_is_computed(s, computed) for s in stored)}
    return {i for i, node in enumerate(inputs) if node not in computed}


def _stored(node: fx.Node, target: fx.Node) -> list[fx.Node]:
    """What ``node`` may store in ``target``: ``node`` itself unless it is a copy."""
    adds_up = node.target is aten.index_put_.default and any((*node.args[3:], *node.kwargs.values()))
    if node.target in _STORED and not adds_up:
        return [node.args[_STORED[node.target]]]  # type: ignore[list-item]
    return [] if node.target in (aten.zero_.default, aten.fill_.Scalar) else [node]


def _is_computed(value: fx.Node, computed: set[fx.Node]) -> bool:
    held = value.meta.get("val")
    if isinstance(held, torch.Tensor) and not (held.is_floating_point() or held.is_complex()):
        return False
    while value not in computed and not aliases.written(value):
        if value.op == "placeholder":
            return False
        operand = value.all_input_nodes[0] if value.target in _MOVES else aliases.base(value)
        if operand is None:
            return True
        value = operand
    return True
