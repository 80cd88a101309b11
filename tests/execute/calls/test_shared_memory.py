"""Memory that the caller shares with the model: what a result was a view of, it stays a view of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import fxpass
from fxpass import backend

RESULTS: dict[str, Callable[..., Any]] = {
    "rows of the cache": lambda m, x, out, start, end, series: m.keys[:, :, start:end],
    "rows that were written": lambda m, x, out, start, end, series: m.keys[:, :, start:end].mul_(2),
    "one layer of the cache": lambda m, x, out, start, end, series: m.keys[0],
    "the cache": lambda m, x, out, start, end, series: m.keys,
    "an argument": lambda m, x, out, start, end, series: x.transpose(1, 2),
    "the tail of a growing argument": lambda m, x, out, start, end, series: series[:, start:],
    "the index": lambda m, x, out, start, end, series: m.index[0],
    "the first result": lambda m, x, out, start, end, series: out[0],
}
REFUSED = {"rows of the cache", "rows that were written"}


class Returns(nn.Module):
    """Decodes, and gives a second result that shares memory with something."""

    keys: Tensor
    index: Tensor

    def __init__(self, second: Callable[..., Any]) -> None:
        super().__init__()
        self.second = second
        self.register_buffer("keys", torch.zeros(2, 2, 16, 4))
        self.register_buffer("index", torch.zeros(1, dtype=torch.long))

    def forward(self, x: Tensor, series: Tensor) -> tuple[Tensor, Any]:
        start = self.index[0].item()
        end = start + x.shape[2]
        self.keys[:, :, start:end] = x
        self.index[0] = end
        out = scaled_dot_product_attention(x, self.keys[:, :, :end], self.keys[:, :, :end])
        return out, self.second(self, x, out, start, end, series)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("recorded", [False, True], ids=["", "as for a recording"])
@pytest.mark.parametrize("name", RESULTS)
def test_a_view_stays_a_view(name: str, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller writes to the second result is seen where eager shows it."""
    if recorded:
        monkeypatch.setattr(backend, "is_recorded", lambda *_: True)
    torch.manual_seed(0)
    model = Returns(RESULTS[name])
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
    length = 0
    for rows in (5, 1, 1, 1):
        length += rows
        x, series = torch.randn(2, 2, rows, 4), torch.arange(2.0 * length).reshape(2, length)
        seen = []
        for run, m in ((compiled, model), (eager, eager)):
            own = x.clone(), series.clone()
            with torch.no_grad():
                out, second = run(*own)
                second.add_(1)
            seen.append((out, second.clone(), *own, m.keys.clone(), m.index.clone()))
        torch.testing.assert_close(*seen)
    assert any(report.rewritten for report in fxpass.reports())
    assert any(report.refused for report in fxpass.reports()) == (name in REFUSED)


class Breaks(Returns):
    """Uses the position again after a break of the graph, when the index has moved on."""

    def forward(self, x: Tensor, series: Tensor) -> tuple[Tensor, Any]:
        start = self.index[0].item()
        self.index[0] = start + x.shape[2]
        torch._dynamo.graph_break()
        self.keys[:, :, start : start + x.shape[2]] = x
        return x + start, start


def test_a_position_outlives_the_graph_that_moves_it() -> None:
    """After the break it is the number that was read, not what the index holds by then."""
    model, x = Breaks(lambda *_: None), torch.ones(2, 2, 1, 4)
    compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
    for step in range(5):
        out, start = compiled(x, x)
        assert (out.mean().item(), start) == (1 + step, step)
        assert model.keys[0, 0, :, 0].tolist() == [1.0] * (step + 1) + [0.0] * (15 - step)
