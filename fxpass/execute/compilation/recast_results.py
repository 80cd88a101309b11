"""Results that are an input seen as another dtype are made by PyTorch's own views, beside what is compiled.

    return k.sum(1), k[:, p].view(torch.int16)        compiled: k.sum(1)        beside it: k[:, p].view(torch.int16)

Where a symbol is among the arguments of the views, AOTAutograd makes the result anew from the input by `as_strided`, with the
sizes of the result in elements of the input: it has another shape, or the call raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.extract import duplicate, extract
from fxpass.graph.values import is_tensor


def beside_recast(gm: fx.GraphModule, compile_: Callable[[fx.GraphModule], Callable[..., Any]]) -> Callable[..., Any]:
    """A callable for ``gm``. All but such results is compiled by ``compile_``."""
    results = list(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    recast = [_is_recast(result) for result in results]
    if not any(recast):
        return compile_(gm)
    views = _only(gm, [result for result, is_recast in zip(results, recast, strict=True) if is_recast])
    rest = duplicate(gm)
    output = rest.graph.output_node()
    output.args = (tuple(r for r, is_recast in zip(output.args[0], recast, strict=True) if not is_recast),)  # type: ignore
    aliases.remove_dead(rest.graph)
    rest.recompile()
    run = compile_(rest)

    def run_beside(*args: Any) -> tuple[Any, ...]:
        compiled, viewed = iter(run(*args)), iter(views(*args))
        return tuple(next(viewed if is_recast else compiled) for is_recast in recast)

    return run_beside


def _is_recast(result: Any) -> bool:
    """Whether ``result`` is made of an input of another dtype, and by nothing but views and numbers."""
    value = result.meta.get("val") if isinstance(result, fx.Node) else None
    if not isinstance(value, torch.Tensor):
        return False
    root = aliases.root(result)
    if root.op != "placeholder" or root.meta["val"].dtype == value.dtype:
        return False
    tensors = (n for n in _needed([result]) if is_tensor(n))
    return all(aliases.base(n) is not None and not aliases.written(n) for n in tensors)


def _needed(results: list[fx.Node]) -> list[fx.Node]:
    """The ops that ``results`` are computed by, in order."""
    needed = set(results)
    for node in reversed(results[0].graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [n for n in results[0].graph.nodes if n in needed and n.op != "placeholder"]


def _only(gm: fx.GraphModule, results: list[fx.Node]) -> fx.GraphModule:
    return extract(gm, _needed(results), gm.graph.find_nodes(op="placeholder"), results, "Views")
