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
from fxpass.execute import growth

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

    def forward(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past, list[Tensor]]:
        kept: Past = []
        shown: list[Tensor] = []
        for i, layer in enumerate(self.qkv):
            q, k, v = (t.unflatten(-1, (HEADS, DIM)) for t in layer(x).chunk(3, -1))
            k, v = self.stored(k), self.stored(v)
            if past is not None:
                x = x + 0.1 * self.heads(past[2 * i]).mean((1, 2)).flatten()[:1] if self.first else x
                k, v = self.join(past[2 * i], k), self.join(past[2 * i + 1], v)
            kept += [self.alias(k), self.alias(v)]
            shown += SHOWN[self.shown](self.heads(k))
            x = x + READS[self.reads[i]](q.transpose(1, 2), self.heads(k), self.heads(v)).transpose(1, 2).flatten(2)
        return x, kept, shown

    def stored(self, t: Tensor) -> Tensor:
        """[b, s, h, d] as this program keeps it."""
        if self.layout == "bsf":
            return t.flatten(2)
        return t.permute(["bshd".index(letter) for letter in self.layout])

    def heads(self, t: Tensor) -> Tensor:
        """What is kept as [b, h, s, d]."""
        if self.layout == "bsf":
            return t.unflatten(-1, (HEADS, DIM)).transpose(1, 2)
        return t.permute([self.layout.index(letter) for letter in "bhsd"])

    def join(self, past: Tensor, new: Tensor) -> Tensor:
        if self.apart and new.shape[self.dim] > 1:
            return torch.cat([past, *new.split(1, self.dim)], self.dim)
        return torch.cat((past, new), dim=self.dim)


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
def run(seed: int, compiler: str = "eager", steps: int = 22) -> str:
    """What differs from eager in the program of ``seed``; empty where nothing does."""
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    program, pick = Program(seed), random.Random(~seed)
    fn = torch.compile(program, backend="kvfix", options={"compiler": compiler, "verify": 0})
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--compiler", default="eager")
    options = parser.parse_args()
    failed = whole = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            said = run(seed, options.compiler)
        except Exception as error:
            said = f"seed {seed}: {type(error).__name__}: {error}"
        last = fxpass.reports()[-1]
        whole += bool(last.parts) and last.parts[-1][0] == "core"
        why = {r.unbuffered for r in fxpass.reports() if r.unbuffered}
        print(said or f"seed {seed}: equal; {counters['stats']['unique_graphs']} graphs; {last.parts} {why or ''}", flush=True)
        failed += bool(said)
    print(f"{failed} of {options.seeds} differ; {whole} end with one static core")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
