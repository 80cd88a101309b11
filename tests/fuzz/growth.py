"""Random programs with caches that `cat` makes longer, and a caller who does all that one may do with a past.

``python -m tests.fuzz.growth --seeds 200`` runs them with kvfix and in eager, and prints what differs: a seed stands for a
program. Each step compares what comes out, the pasts, and all that was kept of earlier steps.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass
from fxpass.execute.buffers import growth

from .same import Failure, same

HEADS, DIM = 2, 4
LAYOUTS = {"bhsd": 2, "bshd": 1, "shbd": 0, "bsf": 1}
Past = list[Tensor]


class Program(nn.Module):
    """``forward(x, past)``, of the choices that ``seed`` makes: layout, layers, how rows are joined, and what reads them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        pick = random.Random(seed)
        torch.manual_seed(seed)
        self.layout = pick.choice([*LAYOUTS])
        self.dim = LAYOUTS[self.layout] - pick.choice([0, len(self.layout)])
        self.layers = pick.choice([1, 1, 2])
        self.qkv = nn.ModuleList(nn.Linear(HEADS * DIM, 3 * HEADS * DIM) for _ in range(self.layers))
        self.reads = [pick.choice([*READS]) for _ in range(self.layers)]
        self.shown = pick.choice([*SHOWN])
        self.apart = pick.random() < 0.3
        self.alias = pick.choice([lambda t: t, lambda t: t, lambda t: t.detach(), lambda t: t.contiguous()])
        self.first = pick.choice([True, True, False])  # whether the past is read, too
        self.joined = JOINS[pick.choice(["cat", *JOINS])]
        self.window = pick.choice([None, None, *WINDOWS])
        self.dtype = pick.choice([None, None, None, torch.float16])

    def forward(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past, list[Tensor]]:
        kept: Past = []
        shown: list[Tensor] = []
        for i, layer in enumerate(self.qkv):
            q, k, v = (t.unflatten(-1, (HEADS, DIM)) for t in layer(x).chunk(3, -1))
            k, v = self.stored(k), self.stored(v)
            if past is not None:
                x = x + 0.1 * self.heads(past[2 * i]).mean((1, 2)).flatten()[:1].to(x) if self.first else x
                k, v = self.join(past[2 * i], k), self.join(past[2 * i + 1], v)
            kept += [self.alias(self.cropped(k)), self.alias(self.cropped(v))]
            if self.window == "read":
                k, v = self.cropped(k), self.cropped(v)
            shown += SHOWN[self.shown](self.heads(k))
            k, v = k.to(x.dtype), v.to(x.dtype)
            x = x + READS[self.reads[i]](q.transpose(1, 2), self.heads(k), self.heads(v)).transpose(1, 2).flatten(2)
        return x, kept, shown

    def stored(self, t: Tensor) -> Tensor:
        """[b, s, h, d] as this program keeps it."""
        t = t if self.dtype is None else t.to(self.dtype)
        if self.layout == "bsf":
            return t.flatten(2)
        return t.permute(["bshd".index(letter) for letter in self.layout])

    def heads(self, t: Tensor) -> Tensor:
        """What is kept as [b, h, s, d]."""
        if self.layout == "bsf":
            return t.unflatten(-1, (HEADS, DIM)).transpose(1, 2)
        return t.permute([self.layout.index(letter) for letter in "bhsd"])

    def join(self, past: Tensor, new: Tensor) -> Tensor:
        if self.window == "before":
            rows = min(past.shape[self.dim], WIDTH - new.shape[self.dim])
            past = past.narrow(self.dim, past.shape[self.dim] - rows, rows)
        if self.apart and new.shape[self.dim] > 1:
            return torch.cat([past, *new.split(1, self.dim)], self.dim)
        return self.joined(past, new, self.dim)

    def cropped(self, t: Tensor) -> Tensor:
        """The rows of ``t`` that are kept."""
        if self.window in (None, "before") or self.window == "if" and t.shape[self.dim] <= WIDTH:
            return t
        rows: list[Any] = [slice(None)] * t.dim()
        rows[self.dim] = slice(-WIDTH, None)
        return t[tuple(rows)].contiguous() if self.window == "copied" else t[tuple(rows)]


def _longer(past: Tensor, new: Tensor, dim: int) -> list[int]:
    sizes = [*past.shape]
    sizes[dim] += new.shape[dim]
    return sizes


def _in_pieces(past: Tensor, new: Tensor, dim: int) -> Tensor:
    out = past.new_empty(_longer(past, new, dim))
    out.narrow(dim, 0, past.shape[dim]).copy_(past)
    out.narrow(dim, past.shape[dim], new.shape[dim]).copy_(new)
    return out


def _padded(past: Tensor, new: Tensor, dim: int) -> Tensor:
    widths = [0] * (2 * past.dim())
    widths[2 * (past.dim() - 1 - dim % past.dim()) + 1] = new.shape[dim]
    out = nn.functional.pad(past, widths)
    out.narrow(dim, past.shape[dim], new.shape[dim]).copy_(new)
    return out


def _turned(past: Tensor, new: Tensor, dim: int) -> Tensor:
    return torch.cat([past.movedim(dim, 0), new.movedim(dim, 0)], 0).movedim(0, dim)


WIDTH = 9
WINDOWS = ["read", "kept", "before", "if", "copied"]
JOINS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "cat": lambda past, new, dim: torch.cat((past, new), dim=dim),
    "concat": lambda past, new, dim: torch.concat([past, new], dim),
    "out": lambda past, new, dim: torch.cat([past, new], dim, out=past.new_empty(_longer(past, new, dim))),
    "pieces": _in_pieces,
    "padded": _padded,
    "turned": _turned,
    "scaled": lambda past, new, dim: torch.cat([past * 0.5, new], dim),
    "cast": lambda past, new, dim: torch.cat([past.double(), new.double()], dim).to(new.dtype),
}


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    at = torch.arange(q.shape[2]) + (k.shape[2] - q.shape[2])
    seen = torch.arange(k.shape[2])[None] <= at[:, None]
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def _products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    away = (torch.arange(k.shape[2]) - k.shape[2] + 1).float()
    return (q @ k.mT * DIM**-0.5 + 0.1 * away).softmax(-1) @ v


def _window(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _sdpa(q, k[:, :, -4:], v[:, :, -4:])


def _sums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q * k.amax(2, keepdim=True) + v.mean(2, keepdim=True) - k[:, :, -1:]


def _running(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q + (k.cumsum(2)[:, :, -1:] * v.std(2, keepdim=True)) / k.shape[2]


READS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdpa": _sdpa, "causal": _causal, "products": _products, "window": _window, "sums": _sums, "running": _running,
}  # fmt: skip
SHOWN: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "nothing": lambda k: [],
    "nothing else": lambda k: [],
    "scores": lambda k: [k.sum(-1)],
    "last": lambda k: [k[:, :, -1].clone()],
    "scaled": lambda k: [k.contiguous() * 2, k.mean((1, 3)).softmax(-1)],
    "rows of the batch": lambda k: [k[0], *k.unbind(0)],
    "halves": lambda k: [*k.chunk(2, 1), k[:, :, -1:], k.mT],
}


def crop(past: Past, program: Program) -> Past:
    return [t.narrow(program.dim, 0, max(t.shape[program.dim] - 2, 2)) for t in past]


def reorder(past: Past, program: Program) -> Past:
    batch = 0 if program.layout == "bsf" else program.layout.index("b")
    return [t.index_select(batch, torch.tensor([1, 1])) for t in past]


def overwrite(past: Past, program: Program) -> Past:
    past[0].select(program.dim, 1).mul_(-1)
    return past


def overwrite_view(past: Past, program: Program) -> Past:
    past[-1].narrow(program.dim, 0, 1).unsqueeze(0)[..., ::2].zero_()
    return past


EDITS: list[Callable[[Past, Program], Past]] = [
    crop, reorder, overwrite, overwrite_view,
    lambda past, program: [t.clone() for t in past],
    lambda past, program: copy.deepcopy(past),
    lambda past, program: [t.transpose(0, -1).contiguous().transpose(0, -1) for t in past],
]  # fmt: skip


@torch.no_grad()
def run(seed: int, compiler: str = "eager", steps: int = 22, backend: str = "kvfix") -> str:
    """What differs from eager in the program of ``seed``; empty where nothing does. ``counters`` holds the graphs."""
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    program, pick = Program(seed), random.Random(~seed)
    options = {"compiler": compiler, "verify": 0} if backend == "kvfix" else None
    fn = torch.compile(program, backend=backend, options=options)  # type: ignore[call-overload]
    ends: list[tuple[Past, Past]] = []
    mine: Past | None = None
    other: Past | None = None
    rows = pick.choice([1, 1, 2])
    with mock.patch.object(growth, "LEAST", 4):
        for step in range(steps):
            x = torch.randn(2, 5 if mine is None else rows, HEADS * DIM)
            found, wanted = fn(x, mine), program(x, other)
            mine, other = found[1], wanted[1]
            if difference := _differs(found, wanted, ends):
                return f"seed {seed}, step {step}: {difference}"
            ends.append((mine, other))
            if step < 4 or pick.random() < 0.6:
                continue
            if pick.random() < 0.5:
                mine, other = pick.choice(ends)
            if pick.random() < 0.7:
                edit = pick.choice(EDITS)
                mine, other = edit(mine, program), edit(other, program)
            elif pick.random() < 0.2:
                mine = other = None
    return ""


def _differs(found: Any, wanted: Any, ends: list[tuple[Past, Past]]) -> str:
    """What of the results, or of all pasts so far, is another."""
    pairs = [("result", found[0], wanted[0]), ("shown", found[2], wanted[2]), *(("an old past", a, b) for a, b in ends)]
    try:
        for name, a, b in pairs:
            same(b, a, name, "output", 0)
        same(wanted[1], found[1], "past", "state", 0)  # strides, too
    except Failure as failure:
        return failure.detail
    return ""


def outside() -> list[str]:
    """The graphs in which something moves and that are not one static core."""
    return [r.name for r in fxpass.reports() if r.symbols and [n for n, *_ in r.parts if n != "prologue"] != ["core"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--compiler", default="eager")
    options = parser.parse_args()
    failed = whole = worse = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            run(seed, backend="eager")
            stock = counters["stats"]["unique_graphs"]
            said = run(seed, options.compiler)
        except Exception as error:
            said = f"seed {seed}: {type(error).__name__}: {error}"
        graphs, reports = counters["stats"]["unique_graphs"], fxpass.reports()
        left, why = outside(), {r.unbuffered for r in reports if r.unbuffered}
        equal = f"seed {seed}: equal; {graphs} graphs, {stock} in stock; outside of the core {left} {why or ''}"
        print(said or equal, flush=True)
        failed, whole, worse = failed + bool(said), whole + (not left), worse + (graphs > stock)
    print(f"{failed} of {options.seeds} differ; {worse} have more graphs than stock; {whole} are static cores alone")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
