"""Reshapes: the axis stays, is merged with other axes, or is split.

reshape(k, [b * h, n, d])     {2: e} of S   ->      {1: e} of S: the size n becomes the full size
reshape(k, [b, h, n * d])     {2: e} of S   ->      {2: e * d} of S * d: the valid part is still at the front
reshape(k, [b, h * n, d])     {2: e} of S   ->      {1: h * e} of h * S: the valid rows of each h are moved together, a copy
reshape(k, [b, h, n // 2, 2]) {2: e} of S   ->      {2: e // 2} of S // 2, of the rows below S - S % 2
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.analysis.resizing import resized
from fxpass.errors import Refusal
from fxpass.graph.numbers import Derived, equal, fixed, known, number

from .places import modulo, plus, quotient, rows, times, valid_length

aten = torch.ops.aten


@rule(aten.reshape, aten.view.default, aten._unsafe_view, aten.flatten, aten.unflatten, aten.view_as)
def reshape(node: fx.Node, flow: Flow) -> Extents:
    x: Any = node.args[0]
    old, new = _shape(x), _shape(node)
    own = flow.of(x)
    kept = {d: place for d in own if (place := _same_axis(old, d, new)) is not None}
    out = {place: own[d] for d, place in kept.items()}
    if len(kept) == len(own):
        others = _other_axes(old, new, out)
        flow.replace(node, lambda b: b.call(aten.reshape.default, x, _sizes(b, new, out, x, others)))
        return out
    if len(own) > 1:
        raise Refusal(reasons.RESHAPED, how="merges or splits one of two position-dependent axes")
    ((dim, extent),) = own.items()
    return _regrouped(node, flow, x, dim, extent)


def _regrouped(node: fx.Node, flow: Flow, x: fx.Node, dim: int, extent: Extent) -> Extents:
    old, new = _shape(x), _shape(node)
    (first, last), (start, stop) = _group(old, new, dim)
    places = [d for d in range(start, stop + 1) if flow.steady(new[d], node) is None]
    if len(places) != 1:
        raise Refusal(reasons.RESHAPED, how="merges or splits the position-dependent axis")
    (place,) = places
    outer, inner = (_product(node, flow, old[a:b]) for a, b in ((first, dim), (dim + 1, last + 1)))
    ahead, behind = (_product(node, flow, new[a:b]) for a, b in ((start, place), (place + 1, stop + 1)))
    if ahead != 1:
        raise Refusal(reasons.RESHAPED, how="splits the position-dependent axis into a fixed number of parts")
    if behind == 0:
        raise Refusal(reasons.RESHAPED, how="splits the position-dependent axis into empty parts")
    beside = _product(node, flow, [*old[first:dim], *old[dim + 1 : last + 1]])
    whole = _splitting(node, flow, extent, behind, beside)
    flat = resized(node, flow, whole, (operator.mul, beside))
    own = resized(node, flow, flat, (operator.floordiv, behind))
    block = flow.derive(node, operator.mul, whole.full, inner)
    others = _other_axes(old, new, {place: own})
    if outer != 1:
        flow.refuse_copy(node)

    def build(b: Any) -> fx.Node:
        made = x if whole is extent else b.call(aten.slice.Tensor, x, dim, 0, b.full(whole))
        beside = [b.size(x, d) for d in (*range(first), *range(last + 1, len(old)))]
        made = b.call(aten.reshape.default, made, [*beside[:first], b.full(flat), *beside[first:]])
        if outer != 1:
            rows_of_one = times(b, valid_length(b, extent, x), b.twin(inner, b.device))

            def at(i: fx.Node) -> fx.Node:
                return plus(b, times(b, quotient(b, i, rows_of_one), b.number(block)), modulo(b, i, rows_of_one))

            made = rows(b, made, first, flat, b.full(flat), at)
        return b.call(aten.reshape.default, made, _sizes(b, new, {place: own}, x, others))

    flow.replace(node, build)
    return {place: own}


def _shape(x: fx.Node) -> list[Any]:
    """The sizes of ``x``; one that guards fix is an int."""
    return [size if (own := fixed(size)) is None else own for size in x.meta["val"].shape]


def _product(node: fx.Node, flow: Flow, sizes: list[Any]) -> int | Derived:
    """The product of ``sizes`` as a number to be read before ``node``.

    Raises:
        Refusal: one of them moves from step to step.
    """
    steady = [flow.steady(size, node) for size in sizes]
    if None in steady:
        raise Refusal(reasons.RESHAPED, how="merges or splits the position-dependent axis")
    product: Any = math.prod(size for size in steady if isinstance(size, int))
    for size in (size for size in steady if not isinstance(size, int)):
        product = size if product == 1 else flow.derive(node, operator.mul, size, product)
    return product


def _splitting(node: fx.Node, flow: Flow, extent: Extent, behind: Any, beside: Any) -> Extent:
    """``extent``, of rows of ``beside`` elements each, on an axis that rows of ``behind`` elements divide, as they divide the
    valid part: what is left over at the end is cut.

    Raises:
        Refusal: it is not known how many elements a row has.
    """
    if known(number(beside) % number(behind) == 0):
        return extent
    if not isinstance(behind, int) or not isinstance(beside, int):
        raise Refusal(reasons.RESHAPED, how="merges or splits the position-dependent axis")
    parts = behind // math.gcd(behind, beside)
    if known(extent.full_size % parts == 0):
        return extent
    rest = flow.derive(node, operator.mod, extent.full, parts)
    return dataclasses.replace(extent, full=flow.derive(node, operator.sub, extent.full, rest))


def _group(old: list[Any], new: list[Any], dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The fewest dims of ``old`` around ``dim``, and of ``new``, that hold the same elements: as many stand before and after.

    Raises:
        Refusal: it is not known which these are.
    """
    for first in range(dim, -1, -1):
        for start in (s for s in range(len(new), -1, -1) if known(math.prod(new[:s]) == math.prod(old[:first]))):
            for last in range(dim, len(old)):
                for stop in range(start, len(new)):
                    if known(math.prod(new[stop + 1 :]) == math.prod(old[last + 1 :])):
                        return (first, last), (start, stop)
    raise Refusal(reasons.RESHAPED, how="merges or splits the position-dependent axis")


def _same_axis(old: list[Any], dim: int, new: list[Any]) -> int | None:
    """The dim of ``new`` that is dim ``dim`` of ``old``: same size, same number of elements before it."""
    before = math.prod(old[:dim])
    for candidate, size in enumerate(new):
        if equal(size, old[dim]) and known(math.prod(new[:candidate]) == before):
            return candidate
    return None


def _other_axes(old: list[Any], new: list[Any], out: Extents) -> dict[int, int]:
    """For each symbolic size of ``new`` that is no extent, the dim of ``old`` that has it: a batch.

    Raises:
        Refusal: no dim has it.
    """
    moving = [d for d, size in enumerate(new) if d not in out and not isinstance(size, int)]
    found = {d: e for d in moving for e, size in enumerate(old) if equal(size, new[d])}
    if len(found) < len(moving):
        raise Refusal(reasons.RESHAPED, how="mixes the position-dependent axis with others")
    return found


def _sizes(b: Any, new: list[Any], out: Extents, x: Any = None, others: Mapping[int, int] = {}) -> list[Any]:
    return [b.full(out[d]) if d in out else b.size(x, others[d]) if d in others else s for d, s in enumerate(new)]
