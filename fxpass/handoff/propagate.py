"""Fake tensor propagation over a rewritten graph: fresh ``meta["val"]`` on every node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from fxpass.capture.normal_form import faking, mode_of


class _Propagate(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["val"] = value
        return value


def propagate(gm: fx.GraphModule, inputs: Sequence[Any]) -> None:
    """Run ``gm`` on the fake ``inputs`` of the mode that they live in, keeping what each node gives."""
    with faking(mode_of(inputs)):
        _Propagate(gm).run(*inputs)
