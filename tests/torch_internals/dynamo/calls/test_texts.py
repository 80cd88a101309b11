"""A text that a number is put into is made when somebody looks at it: until then the number is no constant of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass


def _told(text: str, on: bool = False) -> None:
    if on:
        print(text)


UNUSED: dict[str, Callable[[int, Tensor], Any]] = {
    "joined": lambda p, k: f"step {p}",
    "several": lambda p, k: f"[{p}, {p + 1}) of {k.shape[1]}",
    "in a format": lambda p, k: f"{p:03d} {p:>4}",
    "converted": lambda p, k: f"{p!r} {p!s:>4}",
    "of a text": lambda p, k: [f"<{note}>" for note in (f"at {p}",)],
    "with a percent sign": lambda p, k: "step %d" % p,  # noqa: UP031
    "with several": lambda p, k: "%s: %03d of %r" % ("step", p, k.shape[1]),  # noqa: UP031
    "written": lambda p, k: [str(p), repr(p), bin(p), format(p, "03d")],
    "added": lambda p, k: "at " + str(p) + f" of {k.shape[1]}",
    "for a function": lambda p, k: _told(f"at {p:d} of {k.shape[1]}"),
}
USED: dict[str, Callable[[int, Tensor], Any]] = {
    "a length": lambda p, k: len(f"{p:03d} of {k.shape[1]}"),
    "a result": lambda p, k: f"[{p}, {p + 1:>3}) {p!r:>4} {p:x}",
    "with a percent sign": lambda p, k: "%03d and %s" % (p, p + 1),  # noqa: UP031
    "a key": lambda p, k: {f"at {p}": 1},
    "written": lambda p, k: (str(p), repr(p), bin(p), oct(p), hex(p)),
    "in a format": lambda p, k: (format(p, "03d"), format(7, "03d"), format(str(p), ">4")),
    "added": lambda p, k: "at " + str(p) + f" of {k.shape[1]}",
    "read in another base": lambda p, k: int(f"{p:x}", 16) + int(bin(p), 2) + int(f"1{p}"),
}


READ: dict[str, Callable[[int, Tensor], Any]] = {
    "an int": lambda p, k: int(f"{p}") + int(str(p)) + int(f"{p:03d}") + int(f"{p!r}"),
    "a float": lambda p, k: k[0, 0] * 0 + float(f"{p}"),
    "a remainder as a key": lambda p, k: {"0": 2.0}[str(p // 8)],
    "a truth as a key": lambda p, k: {"True": 2.0}[str(p < 8)],
}


def calls(text: Callable[[int, Tensor], Any], kept: bool) -> tuple[int, list[int]]:
    """Four steps beside eager: how many graphs there are, and what the reports count as rewritten."""

    def step(k: Tensor, x: Tensor, at: Tensor) -> Any:
        p = int(at)
        note = text(p, k)
        k[:, p : p + 1] = x
        at += 1
        return k[:, : p + 1].mean(1), note if kept else None

    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = ((torch.zeros(2, 16), torch.tensor(1)) for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1)
        (got, note), (wanted, words) = compiled(ours[0], x, ours[1]), step(theirs[0], x, theirs[1])
        torch.testing.assert_close(got, wanted)
        assert note == words
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"], [report.rewritten for report in fxpass.reports()]


@torch.no_grad()
@pytest.mark.parametrize("name", UNUSED)
def test_a_text_that_nobody_looks_at_costs_no_graph(name: str) -> None:
    graphs, rewritten = calls(UNUSED[name], kept=False)
    assert graphs == 2 and rewritten[-1] == 2


@torch.no_grad()
@pytest.mark.parametrize("name", READ)
def test_a_number_that_is_read_of_its_text_costs_no_graph(name: str) -> None:
    graphs, rewritten = calls(READ[name], kept=True)
    assert graphs == 2 and rewritten[-1] >= 2


class Counted(torch.nn.Module):
    """A step of which an attribute tells the position."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 2

    def forward(self, k: Tensor, p: int) -> Tensor:
        self.p, _ = self.p + 1, f"step {self.p} {self.p!r:<3} {self.p:03d}"
        return k[:, : self.p].mean(1)


@torch.no_grad()
@pytest.mark.parametrize("step", [lambda k, p: (f"step {p}", k[:, :p].mean(1))[1], Counted()])
def test_a_number_that_the_frame_is_given_may_stand_in_a_text(step: Callable[[Tensor, int], Tensor]) -> None:
    torch._dynamo.reset()
    fxpass.reset()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    k = torch.rand(2, 16)
    for p in (3, 4, 5, 6):
        torch.testing.assert_close(compiled(k, p), k[:, :p].mean(1))
    assert [report.rewritten for report in fxpass.reports()] == [0, 1]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", USED)
def test_a_text_that_is_used_is_eagers(name: str) -> None:
    calls(USED[name], kept=True)
    assert not any(report.faults for report in fxpass.reports())
