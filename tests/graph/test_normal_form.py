"""What a graph cannot be written in aten for is a reason, not a fault of the pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import fxpass


def lookup(x: Tensor, start: Tensor) -> Tensor:
    return torch.linspace(0, 1, 8)[start] + x


def lower_triangle(x: Tensor, start: Tensor) -> Tensor:
    return torch.ones(2, 8).tril(start).sum() + x


def upper_triangle(x: Tensor, start: Tensor) -> Tensor:
    return torch.ones(2, 8).triu(diagonal=start).sum() + x


def row(x: Tensor, start: Tensor) -> Tensor:
    return torch.arange(8.0).select(0, start) + x


def rolled(x: Tensor, start: Tensor) -> Tensor:
    return x.roll(start, -1)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("use", [lookup, lower_triangle, upper_triangle, row, rolled])
@torch.no_grad()
def test_numbers_that_tensors_hold(use: Callable[[Tensor, Tensor], Tensor], compiler: str) -> None:
    def step(k: Tensor, idx: Tensor, x: Tensor) -> Tensor:
        start = idx[0]
        end = start + 1
        k[:, start:end] = x
        torch._dynamo.graph_break()
        out = use(x, start) + k[:, :end].sum(1, keepdim=True)
        idx[0] += 1
        return out

    compiled = kvfix(step, compiler=compiler)
    mine, eager = ((torch.zeros(2, 8, 2), torch.full((1,), 2)) for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1, 2)
        torch.testing.assert_close(compiled(*mine, x), step(*eager, x))
        assert torch.equal(mine[0], eager[0]) and torch.equal(mine[1], eager[1])
    assert not any("the pass failed" in report.unfit for report in fxpass.reports())


def in_a_checkpoint(k: Tensor, x: Tensor, end: int) -> Tensor:
    return checkpoint(lambda q, c: (q @ c.mT).softmax(-1) @ c, x, k[:, :end], use_reentrant=False)


def sliced_in_a_checkpoint(k: Tensor, x: Tensor, end: int) -> Tensor:
    out, total = checkpoint(lambda q, c: (q @ c[:, :end].mT, c[:, :end].sum(1)), x, k, use_reentrant=False)
    return out.sum(-1, keepdim=True) + total[:, None]


def in_two_checkpoints(k: Tensor, x: Tensor, end: int) -> Tensor:
    inner = lambda q: checkpoint(torch.sin, q, use_reentrant=False)  # noqa: E731
    return checkpoint(inner, x, use_reentrant=False) @ k[:, :end].mT @ k[:, :end]


def beside_a_checkpoint(k: Tensor, x: Tensor, end: int) -> Tensor:
    return checkpoint(torch.tanh, x, use_reentrant=False) + k[:, :end].amax(1, keepdim=True)


def of_ragged_rows(k: Tensor, x: Tensor, end: int) -> Tensor:
    return torch.nested.nested_tensor([k[0, :end], k[1, : end - 1]], layout=torch.jagged).values().sum(0) + x


def sliced_under_vmap(k: Tensor, x: Tensor, end: int) -> Tensor:
    return torch.vmap(lambda row: row[:end].sum(0))(k)[:, None] + x


def row_under_vmap(k: Tensor, x: Tensor, end: int) -> Tensor:
    return torch.vmap(lambda row: row[end - 1])(k)[:, None] + x


def marked(k: Tensor, x: Tensor, end: int) -> Tensor:
    return k[:, :end].sum(1, keepdim=True) + x.sum(1, keepdim=True)


WHOLE = [in_a_checkpoint, sliced_in_a_checkpoint, in_two_checkpoints, beside_a_checkpoint]
"""Of these everything is rewritten; the rest is not."""


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("read", [*WHOLE, of_ragged_rows, sliced_under_vmap, row_under_vmap, marked])
@torch.no_grad()
def test_functions_and_sizes_of_other_kinds(read: Callable[[Tensor, Tensor, int], Tensor], compiler: str) -> None:
    """No fault of a hook or of the pass where a function is called by an operator, or a size has no value (`mark_unbacked`)."""

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + x.shape[1]] = x
        return read(k, x, p + x.shape[1])

    compiled = kvfix(step, compiler=compiler)
    mine, eager, p = torch.zeros(2, 16, 4), torch.zeros(2, 16, 4), 2
    for n in (3, 2, 3) if read is marked else (1, 1, 1, 1):
        x = torch.rand(2, n, 4)
        if read is marked:
            torch._dynamo.decorators.mark_unbacked(x, 1)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        assert torch.equal(mine, eager)
        p += n
    reports = fxpass.reports()
    assert not any("the pass failed" in report.unfit or report.faults for report in reports)
    if read in WHOLE:
        assert reports[-1].rewritten >= 2 and not reports[-1].refused
    elif read is not marked:  # of which releases of torch know more or less
        assert reports[-1].unfit or reports[-1].refused


@torch.no_grad()
def test_a_result_of_which_a_part_is_known() -> None:
    """The branch makes ``p // 4`` a constant; what is computed from it is no other number than before."""

    def step(k: Tensor, x: Tensor, p: int, n: int) -> tuple[Tensor, int, int]:
        k[:, p : p + 1] = x
        page = p // 4
        if page == 1:
            return k[:, : p + 1].sum(1), (3 * page + 1) % 5, (page + n) % 7
        return k[:, : p + 1].sum(1) * 2, page, n

    compiled = kvfix(step, compiler="eager")
    mine, eager = torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)
    for p in (2, 4, 5, 6, 7, 5):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(mine, x, p, p + 3), step(eager, x, p, p + 3))
        assert torch.equal(mine, eager)
    assert fxpass.reports()[-1].rewritten and not any(report.unfit for report in fxpass.reports())


@torch.no_grad()
def test_a_sum_of_many_terms_of_which_some_are_known() -> None:
    """``torch.sym_sum`` takes its terms as a list: the window's four rows, known by a guard, are within one."""

    def step(k: Tensor, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        k[:, start:end] = x
        window = k[:, max(0, end - 4) : end]
        return (window * torch.arange(2, window.shape[1] + 2)[:, None]).sum(1) + (1 if start > 3 else -1)

    compiled = kvfix(step)
    mine, eager = torch.zeros(2, 8, 2), torch.zeros(2, 8, 2)
    for start in range(7):
        x = torch.rand(2, 1, 2)
        torch.testing.assert_close(compiled(mine, x, start), step(eager, x, start))
    torch.testing.assert_close(mine, eager)


@pytest.mark.parametrize("make", [torch.arange, torch.ones, lambda n: torch.arange(n) * 0.5])
@torch.no_grad()
def test_a_graph_that_is_given_numbers_alone(make: Callable[[int], Tensor]) -> None:
    """No tensor says in which environment the symbols of its sizes are."""

    def step(n: int) -> Tensor:
        rows = make(n).view(-1, 1)
        return torch.where(rows - make(n).view(1, -1) >= 0, 0.0, float("-inf"))

    compiled = kvfix(step, compiler="eager")
    for n in (3, 4, 6):
        assert torch.equal(compiled(n), step(n))
    assert not any(report.unfit for report in fxpass.reports())
