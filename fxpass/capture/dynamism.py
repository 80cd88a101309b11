"""Sizes that go with a moving position: made dynamic before they have been seen to change.

Dynamo makes a number dynamic when it changes between two calls. For a decode step that is too late: the capacity of the
cache, the ints that repeat it, and the ints that repeat the length of the series change with the next context, and each
would cost one more graph. So when a graph with moving positions is first compiled,

    - the size of a cache along the sliced dim,
    - every int that was equal to such a size, or to a size that has changed meanwhile, when both were first seen

are marked as Dynamo's automatic dynamic shapes would have marked them one call later, and the frame is traced again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from types import CodeType
from typing import Any

import torch
from torch import fx
from torch._dynamo.exc import RestartAnalysis, TensorifyScalarRestartAnalysis
from torch._dynamo.pgo import FrameStateSizeEntry, auto_dynamic, update_automatic_dynamic
from torch._dynamo.symbolic_convert import InstructionTranslator

from fxpass.analysis.sites import Site

Restart = RestartAnalysis
"""How Dynamo is told to trace a frame again: not an error."""

_ints: defaultdict[CodeType, dict[str, int]] = defaultdict(dict)
_sizes: defaultdict[CodeType, dict[str, tuple[int, ...]]] = defaultdict(dict)


def forget() -> None:
    """Forget what was first seen."""
    _ints.clear()
    _sizes.clear()


def see_int(code: CodeType, name: str, value: int) -> None:
    """Remember the first ``value`` of the int called ``name`` in a frame of ``code``."""
    _ints[code].setdefault(name, value)


def generalize(gm: fx.GraphModule, sites: Iterable[Site]) -> None:
    """Mark what goes with the positions of ``gm``'s ``sites`` as dynamic; the graph is in normal form.

    Raises:
        RestartAnalysis: something was marked; Dynamo traces the frame again.
    """
    tx = _current_frame()
    if tx is None:
        return
    inputs = {n: s for n in gm.graph.nodes if n.op == "placeholder" and (s := _source_name(n)) is not None}
    tensors = {n: s for n, s in inputs.items() if isinstance(n.meta.get("val"), torch.Tensor)}
    seen, ints = _sizes[tx.f_code], _ints[tx.f_code]
    for node, name in tensors.items():
        seen.setdefault(name, tuple(_hint(s) for s in node.meta["val"].shape))
    sites = list(sites)
    if not sites or torch._dynamo.config.assume_static_by_default is False:
        return
    changed = False
    for site in sites:
        place = _input_dim(site)
        if place is not None and place[0] in tensors:
            changed |= _mark_size(tx, tensors[place[0]], place[1])
    tied = {
        v
        for n, name in tensors.items()
        for d, v in enumerate(seen[name])
        if not isinstance(n.meta["val"].shape[d], int)
    }
    tied |= {seen[tensors[p[0]]][p[1]] for s in sites if (p := _input_dim(s)) is not None and p[0] in tensors}
    for name, value in ints.items():
        if value in tied and value > 1:
            changed |= _mark_int(tx, name)
    if changed:
        tx.speculation_log.clear()
        raise TensorifyScalarRestartAnalysis(restart_reason="kvfix: sizes that go with a moving position")


def _current_frame() -> Any:
    try:
        tx = InstructionTranslator.current_tx()
    except (AttributeError, AssertionError):
        return None  # not called by Dynamo
    return tx.output.root_tx


def _mark_int(tx: Any, name: str) -> bool:
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    if type(entry.scalar) is not int:
        return False
    entry.scalar = auto_dynamic
    return True


def _mark_size(tx: Any, name: str, dim: int) -> bool:
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    if not isinstance(entry.size, tuple) or type(entry.size[dim]) is not int:
        return False
    entry.size = (*entry.size[:dim], auto_dynamic, *entry.size[dim + 1 :])
    return True


def _input_dim(site: Site) -> tuple[fx.Node, int] | None:
    """The graph input that ``site`` slices, and the dim of it that has the sliced dim's size and stride."""
    buffer, base = site.buffer, site.base.meta["val"]
    if buffer.op != "placeholder" or site.kind == "narrow":
        return None
    whole = buffer.meta["val"]
    same = [
        d
        for d in range(whole.dim())
        if _hint(whole.shape[d]) == _hint(base.shape[site.dim])
        and _hint(whole.stride(d)) == _hint(base.stride(site.dim))  # by hints: a comparison would guard
    ]
    return (buffer, same[0]) if len(same) == 1 else None


def _source_name(node: fx.Node) -> str | None:
    argument = node.meta.get("placeholder", node).meta.get("grapharg")
    return None if argument is None or argument.source is None else argument.source.name


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else size.node.hint
