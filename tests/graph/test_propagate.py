"""What propagation leaves alone is what running every op again would give, in every minimal model.

The models run with huge numbers in the tails, and are compared with eager.
"""

from __future__ import annotations

import sys

import pytest
import torch
from reach.models import MODELS
from reach.runner import run

from fxpass import api

stage = sys.modules["fxpass.graph.propagate"]


@pytest.mark.parametrize("name", MODELS)
def test_kept_values_are_those_of_a_full_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def both(gm, inputs, before=None) -> None:
        stage.propagate(gm, inputs, before)
        calls = [n for n in gm.graph.nodes if n.op == "call_function"]
        values = {n: n.meta["val"] for n in calls if "val" in n.meta}  # on torch 2.11 an assertion has none
        memory = {n: stage.aliases.root(n) for n in values}
        stage.propagate(gm, inputs)
        for node, value in values.items():
            assert stage._alike(value, node.meta["val"]), f"{node.format_node()}: {value}, not {node.meta['val']}"
            assert stage.aliases.root(node) is memory[node], node.format_node()
        kept.append(sum(before.get(n.name) == stage._call(n) for n in values))

    monkeypatch.setattr(api, "propagate", both)
    torch._dynamo.reset()
    run(MODELS[name], "huge")
    assert kept
