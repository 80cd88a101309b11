"""Rows of a fixed number of a tensor that grows are work of the static core, whatever their strides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda x: x[:, -1:],
    "select": lambda x: x[:, -1].unsqueeze(1),
    "first": lambda x: x[:, :1],
    "transposed": lambda x: x.transpose(1, 2)[..., -1:].mT,
    "made": lambda x: (x * 2).contiguous()[:, -1:],
    "view of rows": lambda x: x[:, -2:].transpose(1, 2)[..., :1].mT,
    "column": lambda x: x.unbind(2)[1][:, -1:, None].expand(-1, -1, 4),
}


def step(pick: Callable[[Tensor], Tensor], x: Tensor, k: Tensor, at: int, w: Tensor) -> tuple[Tensor, Tensor]:
    rows = pick(x)
    k[:, at : at + 1] = rows
    return (rows @ k[:, : at + 1].mT).softmax(-1) @ k[:, : at + 1] @ w, x.sum(1)


def same(compiler: str, fn: Callable[..., object], calls: int = 3) -> fxpass.Report:
    """``fn(x, k, at, w)`` on a longer and longer ``x``, against eager."""
    compiled = torch.compile(fn, backend="kvfix", options={"compiler": compiler})
    w, ours, theirs = torch.rand(4, 4), torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)
    for at in range(2, 2 + calls):
        x = torch.rand(2, 3 * at, 4)
        beside = x.clone()
        torch.testing.assert_close(compiled(x, ours, at, w), fn(beside, theirs, at, w))
        assert torch.equal(ours, theirs) and torch.equal(x, beside)
    report = fxpass.reports()[-1]
    assert len(fxpass.reports()) == 2 and report.rewritten >= 2 and not report.refused
    return report


@pytest.mark.parametrize("pick", ROWS)
def test_rows_that_are_fixed_are_in_the_core(pick: str) -> None:
    report = same("eager", lambda *given: step(ROWS[pick], *given))
    assert not report.outside and report.parts[-1][:2] == ("core", True)


@pytest.mark.parametrize("pick", ["last", "made"])
def test_behind_aot(pick: str) -> None:
    assert not same("aot_eager", lambda *given: step(ROWS[pick], *given)).outside


def written(x: Tensor, k: Tensor, at: int, w: Tensor) -> tuple[Tensor, Tensor]:
    rows = x[:, -1:]
    rows.mul_(2)
    return step(lambda x: rows, x, k, at, w)


def written_around(x: Tensor, k: Tensor, at: int, w: Tensor) -> tuple[Tensor, Tensor]:
    rows = x[:, -1:]
    x.add_(1)
    return step(lambda x: rows, x, k, at, w)


def given_away(x: Tensor, k: Tensor, at: int, w: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return step(lambda x: y[:, -1:], x, k, at, w)[0], y


@pytest.mark.parametrize("fn", [written, given_away])
def test_what_a_copy_would_not_show_is_left(fn: Callable[..., tuple[Tensor, Tensor]]) -> None:
    same("eager", fn)


def test_a_copy_of_what_is_written_afterwards_is_left() -> None:
    with pytest.warns(fxpass.KvfixWarning, match="KV210 .* aten.matmul runs outside of the static core"):
        same("eager", written_around)


def test_a_view_that_is_returned_is_one() -> None:
    def fn(x: Tensor, k: Tensor, at: int, w: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        return step(lambda x: y[:, -1:], x, k, at, w)[0], y[:, -1:]

    compiled = torch.compile(fn, backend="kvfix", options={"compiler": "eager"})
    for at in range(2, 5):
        given = torch.rand(2, 3 * at, 4), torch.zeros(2, 16, 4), at, torch.rand(4, 4)
        _, rows = compiled(*given)
        assert rows.stride()[0] == 12 * at and rows.untyped_storage().nbytes() == 96 * at
        assert torch.equal(rows, given[0][:, -1:] * 2)


@pytest.mark.parametrize("parts", [lambda x: x.unbind(2), lambda x: x.split(2, 2), lambda x: x.chunk(4, 2)])
def test_a_series_in_parts(parts: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    """What grows may be a view of several tensors."""
    same("eager", lambda *given: step(lambda x: parts(x)[0].flatten(1)[:, -1:, None].expand(-1, -1, 4), *given))
