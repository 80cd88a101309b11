"""Hazards 17 to 21 and 23, as `test_hazards` has those before: right as it is, and wrong with the handling taken out.

22, an input that is a view of another dtype: ``test_a_view_of_another_dtype_is_faked_by_itself`` of `execute/test_regions.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import traced
from handled import HANDLED, check
from small_models import kvfix
from torch import Tensor

import fxpass
from fxpass import api
from fxpass.errors import KvfixWarning
from fxpass.execute.compilation import compilers
from fxpass.execute.partition import hoist as hoisting
from fxpass.index_tensors import table
from fxpass.options import Options
from fxpass.rewriting import sweep
from fxpass.rewriting.nodes import bits


@torch.no_grad()
def decode(
    step: Callable[..., Tensor],
    buffer: Tensor,
    compiler: str = "eager",
    given: Callable[[int], tuple[Tensor, ...]] = lambda p: (),
) -> None:
    """``step(buffer, rows, position, *given(position))`` on both sides for a few positions.

    Raises:
        AssertionError: results or the buffer differ.
    """
    compiled, mine = kvfix(step, compiler), buffer.clone()
    for p in range(3, 7):
        x, rest = torch.rand(2, 1, 8), given(p)
        torch.testing.assert_close(compiled(mine, x, p, *rest), step(buffer, x, p, *rest))
        assert torch.equal(mine.view(torch.uint8), buffer.view(torch.uint8)), "not equal: the buffer"


def goes_back(handled: bool, run: Callable[[], Any]) -> None:
    """``run`` is right; with the handling taken out it runs as stock `torch.compile` would, as what was rewritten cannot."""
    if handled:
        run()
        assert not fxpass.reports()[-1].unfit
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", KvfixWarning)
        run()
    assert any(issubclass(w.category, KvfixWarning) for w in said) and fxpass.reports()[-1].unfit


@pytest.mark.inductor
@HANDLED
def test_17_rows_written_and_permuted_in_one_step(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """Inductor fuses what is read of a buffer between two writes in place with the second; not from torch 2.15 on."""

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        k.copy_(k.flip(1))
        return k[:, : p + 1].sum(1)

    if not handled:
        monkeypatch.setattr(api, "mask_overwritten_rows", lambda *_: False)
        monkeypatch.setattr(compilers, "write_apart", lambda _: False)
    check(handled or torch.__version__ >= "2.15", lambda: decode(step, torch.rand(2, 16, 8), "inductor"))


@pytest.mark.filterwarnings("ignore:kvfix. graph .* as it is, in part(.|\\s)*KV201")
@HANDLED
def test_18_one_row_is_no_tail(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """``t[p]`` of a tensor that is only read: not its last row, and the dim is gone."""

    def step(k: Tensor, x: Tensor, p: int, series: Tensor) -> Tensor:
        k[:, p : p + 1] = x
        return k[:, : p + 1].sum(1) + series[p] + torch.fft.fft(series, dim=0).real.sum(0)  # without a rule: no buffer

    stock = sweep.rewrite_narrow

    def to_the_end(site: Any, b: Any) -> None:
        site.end = None
        stock(site, b)

    if not handled:
        monkeypatch.setattr(sweep, "rewrite_narrow", to_the_end)
    check(handled, lambda: decode(step, torch.rand(2, 16, 8), given=lambda p: (torch.rand(p + 4, 8),)))


class _ByName(dict[Any, Any]):
    """Rules that go by the name of an operator."""

    def __contains__(self, target: object) -> bool:
        return super().__contains__(target) or super().__contains__(self._name(target))

    def __getitem__(self, target: Any) -> Any:
        return super().__getitem__(target if super().__contains__(target) else self._name(target))

    @staticmethod
    def _name(target: Any) -> str:
        return getattr(target, "__name__", str(target)).split(".")[0]


@HANDLED
def test_19_an_operator_is_not_its_name(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """A user's operator called `add` need not add."""
    if not handled:
        monkeypatch.setattr(table, "_RULES", _ByName(table._RULES))
    with torch.library._scoped_library("kvfix_hazard", "FRAGMENT") as library:
        library.define("add(Tensor x, int n) -> Tensor")
        library.impl("add", lambda x, n: x + 2 * n, "CompositeExplicitAutograd")
        library.impl("add", lambda x, n: torch.empty_like(x), "Meta")

        def step(k: Tensor, x: Tensor, p: int, i: Tensor) -> Tensor:
            k[:, p : p + 1] = x
            return k[:, : int(torch.ops.kvfix_hazard.add(i, 1)[0].item())].sum(1)

        check(handled, lambda: decode(step, torch.rand(2, 16, 8), given=lambda p: (torch.tensor([4]),)))


@pytest.mark.inductor
@HANDLED
@torch.no_grad()
def test_20_no_cuda_graphs_are_asked_for_on_a_cpu(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """There that setting changes what Inductor does with complex tensors alone; from torch 2.14 on, it changes nothing."""
    if not handled:
        monkeypatch.setattr(Options, "on", lambda self, _: Options(inductor={"triton.cudagraphs": True}, verify=2))

    class Prefill(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("k", torch.zeros(2, 2, 8, 4, dtype=torch.complex64))

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            self.k[:, :, :5] = c
            return x @ self.k[:, :, :5].abs().mT

    given = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4, dtype=torch.complex64)
    found = lambda: kvfix(Prefill(), "inductor")(*given)  # noqa: E731
    check(handled or torch.__version__ >= "2.14", lambda: torch.testing.assert_close(found(), Prefill()(*given)))


@HANDLED
def test_21_equal_results_stay_two(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """The caller may write to one of two tensors of zeros."""
    if not handled:
        monkeypatch.setattr(hoisting, "_given", lambda graph: set())
    gm = traced(lambda x: (x + 1, torch.zeros(4, 4)[:2], torch.zeros(4, 4)[:2]), [torch.ones(2)])
    hoisting.hoist(gm.graph)
    gm.recompile()
    _, a, b = gm(torch.ones(2))
    a.add_(1)
    assert bool(b.any()) != handled


@HANDLED
def test_23_a_dtype_without_the_operators_is_moved_as_integers(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """PyTorch has no `index_copy_` for 8-bit floats on a CPU."""

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x.to(k.dtype)
        return k[:, : p + 1].float().sum(1)

    if not handled:
        monkeypatch.setattr(bits, "moved_as", lambda dtype: dtype)
        monkeypatch.setattr(bits, "is_put", lambda dtype: False)
    goes_back(handled, lambda: decode(step, torch.zeros(2, 16, 8).to(torch.float8_e4m3fn)))
