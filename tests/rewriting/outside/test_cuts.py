"""Results behind a product that are as long as a position: the core gives them in full, and they are cut outside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass
from fxpass import backend

CAPACITY, WIDTH = 80, 4
Finish = Callable[[list[Tensor], list[Tensor]], Any]

RESULTS: dict[str, Finish] = {
    "weights": lambda weights, scores: weights[-1],
    "weights of each layer": lambda weights, scores: weights,
    "scores before the softmax": lambda weights, scores: scores[-1].detach(),
    "both": lambda weights, scores: (weights[0], scores[0]),
    "averaged over heads": lambda weights, scores: [w.mean(1) for w in weights],
    "stacked over layers": lambda weights, scores: torch.stack(weights),
    "averaged over layers": lambda weights, scores: torch.stack(weights).mean(0),
    "joined along heads": lambda weights, scores: torch.cat(weights, 1),
    "normalized": lambda weights, scores: weights[0] / weights[0].sum(-1, keepdim=True),
    "of the last query": lambda weights, scores: weights[0][:, :, -1] * 2,
    "rows first": lambda weights, scores: weights[0].mT,
    "in another dtype": lambda weights, scores: weights[0].bfloat16(),
    "summed over queries": lambda weights, scores: weights[0].sum(2),
    "a running sum": lambda weights, scores: weights[0].cumsum(-1),
    "with a view of them": lambda weights, scores: (weights[0], weights[0][1]),
    "in parts": lambda weights, scores: weights[0].unbind(1),
    "with the last key's": lambda weights, scores: (weights[0], weights[0][..., -1], scores[0], scores[0].mT),
    "a view that has gaps": lambda weights, scores: weights[0][:, :, -1],
    "a column": lambda weights, scores: weights[0][..., 0],
}


def step(keys: Tensor, values: Tensor, x: Tensor, p: Any, finish: Finish) -> Any:
    weights, scores, n = [], [], p + x.shape[2]
    for k, v in zip(keys, values, strict=True):
        k[:, :, p:n], v[:, :, p:n] = x * 2, x + 1
        score = (x @ k[:, :, :n].mT).masked_fill(torch.arange(n) > torch.arange(p, n)[:, None], float("-inf"))
        weights.append(score.softmax(-1))
        scores.append(score)
        x = weights[-1] @ v[:, :, :n]
    return x, finish(weights, scores)


def of_index(keys: Tensor, values: Tensor, x: Tensor, index: Tensor, finish: Finish) -> Any:
    p = int(index[1])
    index[1] += x.shape[2]
    return step(keys, values, x, p, finish)


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for one in value for t in leaves(one)]


@torch.no_grad()
@pytest.mark.parametrize("recorded", [False, True], ids=["", "as for a recording"])
@pytest.mark.parametrize("name", RESULTS)
def test_attention_stays_in_the_core(name: str, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are eager's, lie in memory as eager's do, and stay what they are while the next steps run."""
    if recorded:
        monkeypatch.setattr(backend, "is_recorded", lambda *_: True)
    of = of_index if recorded else step
    compiled = torch.compile(of, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.full((2, 2, 2, 2, 3, CAPACITY, WIDTH), float("nan")).unbind()
    given, wanted = [], []
    index, eagers_index = torch.zeros(2, 2, dtype=torch.long)
    p = 0
    for rows in (4, 2, 2, 2):
        x = torch.randn(2, 3, rows, WIDTH)
        at, eagers = (index, eagers_index) if recorded else (p, p)
        given += leaves(compiled(*mine, x, at, RESULTS[name]))
        wanted += leaves(of(*eager, x, eagers, RESULTS[name]))
        p += rows
    torch.testing.assert_close(given, wanted)
    assert [t.stride() for t in given] == [t.stride() for t in wanted]
    torch.testing.assert_close((mine, index), (eager, eagers_index), equal_nan=True)
    report = fxpass.reports()[-1]
    assert len(fxpass.reports()) == 2 and "epilogue" not in {part for part, *_ in report.parts}
    assert report.refused == 0 and report.outside == []


@torch.no_grad()
def test_one_length_among_others() -> None:
    """A result is cut to its own length, along each of its dims."""

    def products(k: Tensor, x: Tensor, p: int, w: int) -> Any:
        k[:, p : p + 1] = x
        return k[:, : p + 1] @ k[:, : p + 1].mT, k[:, w : p + 1] @ k[:, : p + 1].mT, x @ k[:, : p - 1].mT

    compiled = torch.compile(products, backend="kvfix", options={"compiler": "aot_eager"})
    mine, eager = torch.randn(1, CAPACITY, WIDTH).repeat(2, 1, 1, 1).unbind()
    for p in range(6, 11):
        x = torch.randn(1, 1, WIDTH)
        torch.testing.assert_close(compiled(mine, x, p, p - 4), products(eager, x, p, p - 4))
    report = fxpass.reports()[-1]
    assert report.refused == 0 and [part for part, *_ in report.parts] == ["prologue", "core"]


@torch.no_grad()
def test_a_result_and_a_view_of_it_share_memory() -> None:
    """Cut one by one they would be two tensors: the view is taken of what is cut."""

    def views(k: Tensor, x: Tensor, p: int) -> Any:
        k[:, p : p + 1] = x
        weights = (x @ k[:, : p + 1].mT).softmax(-1)
        return weights, weights[:, :, 1:]

    compiled = torch.compile(views, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.randn(1, CAPACITY, WIDTH).repeat(2, 1, 1, 1).unbind()
    for p in range(6, 11):
        x = torch.randn(1, 1, WIDTH)
        given, wanted = compiled(mine, x, p), views(eager, x, p)
        given[1].add_(1)
        wanted[1].add_(1)
        torch.testing.assert_close(given, wanted)
        assert given[0].untyped_storage().nbytes() == wanted[0].untyped_storage().nbytes()
    assert fxpass.reports()[-1].refused == 0


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_a_result_that_is_written_under_another_name_is_refused() -> None:
    def written(k: Tensor, x: Tensor, p: int) -> Any:
        k[:, p : p + 1] = x
        weights = (x @ k[:, : p + 1].mT).softmax(-1)
        return weights.mul_(2), weights[0]

    compiled = torch.compile(written, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.randn(1, CAPACITY, WIDTH).repeat(2, 1, 1, 1).unbind()
    for p in range(6, 11):
        x = torch.randn(1, 1, WIDTH)
        torch.testing.assert_close(compiled(mine, x, p), written(eager, x, p))
    assert fxpass.reports()[-1].refused > 0
