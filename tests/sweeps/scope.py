"""Small scope: all programs of a small grammar, on all small buffers, for all positions.

    program     a read, a write, or a rule: a function of a position and of two buffers, along a dim
    buffer      rank 1 to 4, capacity 1 to 5, each dim, contiguous, permuted or strided
    position    0 to the capacity, and one more where eager raises

If something is wrong with a rule, it is wrong on a small buffer too, and here no corner is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .bounded import Outcome, check

Program = Callable[[Any, Tensor, Tensor, int], Any]
"""Of the position, two buffers of one layout, and the dim."""

MOST = 5
OTHER_SIZES = (2, 3, 1)
LAYOUTS = ("contiguous", "permuted", "strided")


def cut(x: Tensor, dim: int, *bounds: Any) -> Tensor:
    """``x[..., slice(*bounds), ...]``."""
    return x[(slice(None),) * dim + (slice(*bounds),)]


def _reads() -> Iterator[tuple[str, Program]]:
    starts = {"": 0, "1": 1, "p": lambda p: p, "p-1": lambda p: p - 1, "-1": -1, "-2": -2}
    ends = {"": None, "p": lambda p: p, "p+1": lambda p: p + 1, "p-1": lambda p: p - 1, "2": 2, "-1": -1}
    for (a, start), (b, end), step in itertools.product(starts.items(), ends.items(), (1, 2)):
        if "p" not in a + b:
            continue

        def read(
            p: Any, k: Tensor, v: Tensor, dim: int, start: Any = start, end: Any = end, step: int = step
        ) -> Tensor:
            return cut(k, dim, *(n(p) if callable(n) else n for n in (start, end)), step)

        yield f"k[{a}:{b}:{step}]", read
    yield "k[p]", lambda p, k, v, dim: k.select(dim, p)
    yield "k[p - 1]", lambda p, k, v, dim: k.select(dim, p - 1)
    yield "narrow(k, p, 1)", lambda p, k, v, dim: k.narrow(dim, p, 1)
    yield "narrow(k, 0, p)", lambda p, k, v, dim: k.narrow(dim, 0, p)
    yield "narrow(k, p - 1, 2)", lambda p, k, v, dim: k.narrow(dim, p - 1, 2)


def _writes() -> Iterator[tuple[str, Program]]:
    rows = {
        "p:p + 1": lambda p, k, dim: cut(k, dim, p, p + 1),
        "p:p + 2": lambda p, k, dim: cut(k, dim, p, p + 2),
        "p - 1:p": lambda p, k, dim: cut(k, dim, p - 1, p),
        ":p": lambda p, k, dim: cut(k, dim, 0, p),
        ":p - 1": lambda p, k, dim: cut(k, dim, 0, p - 1),
        "p:": lambda p, k, dim: cut(k, dim, p, None),
        "p": lambda p, k, dim: k.select(dim, p),
    }
    stores: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "copy_(v)": lambda x, y: x.copy_(y),
        "fill_(2)": lambda x, y: x.fill_(2),
        "mul_(2)": lambda x, y: x.mul_(2),
        "add_(v)": lambda x, y: x.add_(y),
        "zero_()": lambda x, y: x.zero_(),
        "clamp_(0)": lambda x, y: x.clamp_(0),
    }
    for (where, part), (what, store) in itertools.product(rows.items(), stores.items()):

        def write(p: Any, k: Tensor, v: Tensor, dim: int, part: Any = part, store: Any = store) -> Tensor:
            store(part(p, k, dim), part(p, v, dim))
            return cut(k, dim, 0, p) * 1

        yield f"k[{where}].{what}", write


UNARY: dict[str, Callable[[Tensor, int], Any]] = {
    "sum": lambda x, d: x.sum(d),
    "sum of all": lambda x, d: x.sum(),
    "mean": lambda x, d: x.mean(d, keepdim=True),
    "var": lambda x, d: x.var(d),
    "std, population": lambda x, d: x.std(d, correction=0),
    "amax": lambda x, d: x.amax(d),
    "min": lambda x, d: x.min(d),
    "argmax": lambda x, d: x.argmax(d),
    "prod": lambda x, d: x.prod(d),
    "nansum": lambda x, d: x.nansum(d),
    "count_nonzero": lambda x, d: x.count_nonzero(d),
    "any": lambda x, d: (x > 0).any(d),
    "all": lambda x, d: (x > 0).all(d),
    "logsumexp": lambda x, d: x.logsumexp(d),
    "softmax": lambda x, d: x.softmax(d),
    "log_softmax": lambda x, d: x.log_softmax(d),
    "norm": lambda x, d: torch.linalg.vector_norm(x, 2, d),
    "norm of order 0": lambda x, d: torch.linalg.vector_norm(x, 0, d),
    "norm of order inf": lambda x, d: torch.linalg.vector_norm(x, float("inf"), d),
    "norm of order -1": lambda x, d: torch.linalg.vector_norm(x, -1, d),
    "cumsum": lambda x, d: x.cumsum(d),
    "cumprod": lambda x, d: x.cumprod(d),
    "cummax": lambda x, d: x.cummax(d),
    "logcumsumexp": lambda x, d: x.logcumsumexp(d),
    "flip": lambda x, d: x.flip(d),
    "roll": lambda x, d: x.roll(2, d),
    "roll back": lambda x, d: x.roll(-1, d),
    "sort": lambda x, d: x.sort(d),
    "sort, descending": lambda x, d: x.round().sort(dim=d, descending=True, stable=True),
    "argsort": lambda x, d: x.argsort(d),
    "topk": lambda x, d: x.topk(2, d).values,
    "kthvalue": lambda x, d: x.kthvalue(2, d).values,
    "repeat": lambda x, d: x.repeat([2 if i == d else 1 for i in range(x.dim())]),
    "repeat_interleave": lambda x, d: x.repeat_interleave(2, d),
    "last": lambda x, d: x.select(d, -1),
    "first": lambda x, d: x.select(d, 0),
    "last two": lambda x, d: cut(x, d, -2, None),
    "without the first": lambda x, d: cut(x, d, 1, None),
    "without the last": lambda x, d: cut(x, d, 0, -1),
    "every other": lambda x, d: cut(x, d, None, None, 2),
    "unfold": lambda x, d: x.unfold(d, 2, 1),
    "diff": lambda x, d: x.diff(dim=d),
    "flatten": lambda x, d: x.flatten(),
    "flatten with the next": lambda x, d: x.flatten(d, min(d + 1, x.dim() - 1)),
    "flatten with the last": lambda x, d: x.flatten(max(d - 1, 0), d),
    "transpose": lambda x, d: x.transpose(0, d),
    "unsqueeze": lambda x, d: x.unsqueeze(d),
    "movedim": lambda x, d: x.movedim(d, 0),
    "contiguous": lambda x, d: x.contiguous(),
    "tril": lambda x, d: x.tril() if x.dim() > 1 else x,
    "triu": lambda x, d: x.triu(1) if x.dim() > 1 else x,
    "exp": lambda x, d: x.exp(),
    "pad": lambda x, d: torch.nn.functional.pad(x, [0, 0] * (x.dim() - 1 - d) + [1, 2], value=7.0),
    "pad, negative": lambda x, d: torch.nn.functional.pad(x, [0, 0] * (x.dim() - 1 - d) + [-1, 1]),
    "replicate": lambda x, d: torch.nn.functional.pad(x.movedim(d, -1).flatten(0, -2)[None], [1, 2], mode="replicate"),
    "reflect": lambda x, d: torch.nn.functional.pad(x.movedim(d, -1).flatten(0, -2)[None], [1, 0], mode="reflect"),
    "convolution": lambda x, d: torch.nn.functional.conv1d(
        x.movedim(d, -1).reshape(-1, 1, x.shape[d]), torch.ones(1, 1, 2), padding=1
    ),
    "select_scatter": lambda x, d: x.select_scatter(torch.ones(()).expand([*x.shape[:d], *x.shape[d + 1 :]]), d, -1),
    "stack": lambda x, d: torch.stack([x, x * 2], d),
    "cat": lambda x, d: torch.cat([x, x * 2], d),
    "masked_fill": lambda x, d: x.masked_fill(x > 0, 1.0),
    "layer_norm": lambda x, d: torch.nn.functional.layer_norm(x, x.shape[-1:]),
}

BINARY: dict[str, Callable[[Tensor, Tensor, int], Any]] = {
    "add": lambda x, y, d: x + y,
    "where": lambda x, y, d: torch.where(x > 0, x, y),
    "matmul": lambda x, y, d: x.movedim(d, -1) @ y.movedim(d, 0).flatten(1) if x.dim() > 1 else x @ y,
    "scores": lambda x, y, d: x.movedim(d, -1).flatten(0, -2).mT @ y.movedim(d, -1).flatten(0, -2),
    "einsum": lambda x, y, d: torch.einsum("...n,...n->...", x.movedim(d, -1), y.movedim(d, -1)),
    "attention": lambda x, y, d: torch.nn.functional.scaled_dot_product_attention(
        torch.ones(1, 2, x.movedim(d, 0)[:1].numel()),
        x.movedim(d, 0).flatten(1)[None],
        y.movedim(d, 0).flatten(1)[None],
    ),
    "cat of both": lambda x, y, d: torch.cat([x, y], d),
    "cat of one and a part": lambda x, y, d: torch.cat([cut(x, d, -1, None), y], d),
}


def programs() -> dict[str, Program]:
    found = dict([*_reads(), *_writes()])
    for name, unary in UNARY.items():
        found[name] = lambda p, k, v, dim, fn=unary: fn(cut(k, dim, 0, p), dim)
        found[f"{name}, after the first"] = lambda p, k, v, dim, fn=unary: fn(cut(k, dim, 1, p), dim)
    for name, binary in BINARY.items():
        found[name] = lambda p, k, v, dim, fn=binary: fn(cut(k, dim, 0, p), cut(v, dim, 0, p), dim)
    return found


class Buffer(NamedTuple):
    rank: int
    dim: int
    capacity: int
    layout: str


def buffers() -> list[Buffer]:
    every = itertools.product(range(1, 5), range(4), range(1, MOST + 1), LAYOUTS)
    return [Buffer(rank, dim, n, layout) for rank, dim, n, layout in every if dim < rank]


def run(program: Program, buffer: Buffer) -> Outcome:
    """What comes of ``program`` on ``buffer``, for all positions."""
    tensors = [_made(buffer, seed) for seed in (0, 1)]
    positions = sorted(range(buffer.capacity + 2), key=lambda p: (abs(p - min(2, buffer.capacity)), p))
    return check(lambda p, k, v: program(p, k, v, buffer.dim), tensors, positions)


def _made(buffer: Buffer, seed: int) -> Tensor:
    """Numbers of both signs, some of them equal, in the buffer's layout."""
    others = iter(OTHER_SIZES)
    shape = [buffer.capacity if d == buffer.dim else next(others) for d in range(buffer.rank)]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, shape, generator=generator) / 2
    if buffer.layout == "permuted":
        x = x.permute(*reversed(range(buffer.rank))).contiguous().permute(*reversed(range(buffer.rank)))
    if buffer.layout == "strided":
        x = torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0]
    return x
