"""One model, eager and compiled with kvfix, step by step: outputs, buffers, graphs, sites, and what ended up static."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass
from fxpass.execute.plans import cores
from fxpass.graph.heavy_ops import _HEAVY

from .models import Model

DIRT = {"zeros": 0.0, "nan": float("nan"), "inf": float("inf"), "huge": 1e38}


@dataclasses.dataclass
class Outcome:
    """What running one model showed."""

    graphs: int
    breaks: int
    reports: list[fxpass.Report]
    cuts: list[list[Any]]
    """The parts of each graph that was cut."""
    difference: float
    """Largest difference of an output."""

    @property
    def rewritten(self) -> int:
        return sum(report.rewritten for report in self.reports)

    @property
    def refused(self) -> int:
        return sum(report.refused for report in self.reports)

    def __str__(self) -> str:
        return "\n".join(f"{r.unfit}\n{r}" for r in self.reports)


def run(kind: type[Model], dirt: str = "zeros", compiler: str = "eager", recorded: bool = False) -> Outcome:
    """Run ``kind`` both ways and compare after every call.

    Raises:
        AssertionError: outputs differ by more than the model's tolerance, or a buffer by a bit (by 1e-6 where the model is not
            ``exact``, behind a compiler with matmuls of its own, and where it is ``recorded``, with kernels of our own).
    """
    model = kind()
    exact = kind.exact and compiler == "eager" and not recorded
    for name in kind.caches:
        model.get_buffer(name).fill_(DIRT[dirt])
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="kvfix", options={"compiler": compiler})
    torch.manual_seed(0)
    mine, theirs = model.inputs(), eager.inputs()
    difference = 0.0
    with torch.no_grad(), parts_seen() as parts:
        for step, arguments in enumerate(mine):
            own = _same(arguments, next(theirs))
            with torch.random.fork_rng(devices=[]):  # both draw the same numbers
                expected = eager(*own)
            found = compiled(*arguments)
            what = f"{kind.__name__}, {dirt} in the tail, step {step}"
            torch.testing.assert_close(
                found,
                expected,
                rtol=kind.tolerance,
                atol=kind.tolerance,
                equal_nan=True,
                msg=lambda m, what=what: f"{what}: {m}",
            )
            difference = max(difference, (found - expected).abs().nan_to_num().max().item())
            for a, b in zip(model.state(), eager.state(), strict=True):
                assert same_bits(a, b) if exact else close(a, b), f"{what}: a buffer differs"
    breaks = sum(counters["graph_break"].values())
    return Outcome(counters["stats"]["unique_graphs"], breaks, fxpass.reports(), parts, difference)


def _same(arguments: tuple[Any, ...], own: tuple[Any, ...]) -> tuple[Any, ...]:
    """The other model's ``own`` arguments, with the same tensors."""
    return tuple(a.clone() if isinstance(a, Tensor) else b for a, b in zip(arguments, own, strict=True))


@contextmanager
def parts_seen() -> Iterator[list[list[Any]]]:
    """Collects what the hand-off cuts graphs into."""
    seen: list[list[Any]] = []
    split = cores.split

    def spy(*args: Any) -> Any:
        seen.append(split(*args))
        return seen[-1]

    cores.split = spy
    try:
        yield seen
    finally:
        cores.split = split


def same_bits(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor):
        return a == b
    views = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    as_ints = [t.contiguous().view(views[t.element_size()]) if t.element_size() in views else t for t in (a, b)]
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(*as_ints)


def close(a: Any, b: Any) -> bool:
    return torch.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True) if isinstance(a, Tensor) else a == b


def heavy(part: Any) -> list[str]:
    """The matmuls, lookups and attentions of a part."""
    return [n.name for n in part.gm.graph.nodes if getattr(n.target, "overloadpacket", None) in _HEAVY]
