"""Caches of dtypes that lack the operators that rows are moved with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor

import fxpass

FLOATS = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
OTHERS = [torch.uint16, torch.uint32, torch.uint64, torch.complex32, torch.bool]
WIDE = {torch.complex32: torch.complex64, torch.bool: torch.int64, **dict.fromkeys(OTHERS[:3], torch.int64)}


def same(step: Callable[..., Tensor], dtype: torch.dtype, compiler: str, rows: int = 1) -> None:
    """Equal results and buffers, bit by bit, with rows that hold what was there before."""
    compiled = kvfix(step, compiler=compiler)
    k = (torch.rand(2, 16, 8) * 9).to(torch.float32).to(dtype)
    mine = k.clone()
    for p in range(3, 7):
        x = (torch.rand(2, rows, 8) * 9).to(dtype)
        torch.testing.assert_close(compiled(mine, x, p), step(k, x, p))
        width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        assert torch.equal(mine.view(width), k.view(width))
    report = fxpass.reports()[-1]
    assert report.rewritten >= 2 and not report.refused and not report.unfit
    assert [static for _, static, _ in report.parts].count(True) == 1


def wide(k: Tensor) -> Tensor:
    return k.to(WIDE.get(k.dtype, torch.float32))


def from_the_start(k: Tensor, x: Tensor, p: int) -> Tensor:
    k[:, p : p + x.shape[1]] = x
    return wide(k[:, : p + x.shape[1]]).sum(1)


def from_a_moving_start(k: Tensor, x: Tensor, p: int) -> Tensor:
    k[:, p : p + x.shape[1]] = x
    return wide(k[:, p - 2 : p + 1]).sum(1) + wide(k[:, p // 2 : p]).sum(1)


def one_row(k: Tensor, x: Tensor, p: int) -> Tensor:
    k[:, p] = x[:, 0]
    return wide(k[:, : p + 1]).amax(1) if not k.is_complex() else wide(k[:, : p + 1]).sum(1)


def turned(k: Tensor, x: Tensor, p: int) -> Tensor:
    t = k.transpose(1, 2)
    t[:, :, p : p + 1] = x[:, :1].transpose(1, 2)
    return wide(t[:, :, : p + 1]).sum(-1)


FORMS = pytest.mark.parametrize("form", [from_the_start, from_a_moving_start, one_row, turned])


@FORMS
@pytest.mark.parametrize("dtype", FLOATS + OTHERS, ids=str)
@torch.no_grad()
def test_rows_of_every_dtype(form: Callable[..., Tensor], dtype: torch.dtype):
    same(form, dtype, "eager", rows=2)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16], ids=str)
@torch.no_grad()
def test_rows_behind_aot_eager(dtype: torch.dtype):
    same(from_the_start, dtype, "aot_eager")


@pytest.mark.inductor
@pytest.mark.parametrize("form", [from_a_moving_start, one_row])
@torch.no_grad()
def test_rows_behind_inductor(form: Callable[..., Tensor]):
    same(form, torch.float8_e5m2, "inductor")


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_rows_of_a_buffer_that_is_written_again(compiler: str):
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        k.copy_(k.clone())
        return k[:, : p + 1].float().sum(1)

    same(step, torch.float8_e4m3fn, compiler)


def cast(k: Tensor, x: Tensor, p: int) -> Tensor:
    k[:, p : p + 1] = x.to(k.dtype)
    return wide(k[:, : p + 1]).sum(1)


def as_integers(k: Tensor, x: Tensor, p: int) -> Tensor:
    k.view(torch.int16)[:, p : p + 1] = x.to(k.dtype).view(torch.int16)
    return wide(k[:, : p + 1]).sum(1)


@pytest.mark.inductor
@pytest.mark.parametrize("step, dtype", [(cast, torch.float8_e4m3fnuz), (as_integers, torch.float16)])
@torch.no_grad()
def test_bits_are_stored_and_not_the_numbers_that_they_spell(step: Callable[..., Tensor], dtype: torch.dtype):
    """Inductor stores an integer in a buffer of floats as the number that it is, even if it is the bits of one."""
    compiled = kvfix(step, compiler="inductor")
    k = (torch.rand(2, 16, 4) * 9).to(dtype)
    mine = k.clone()
    for p in range(3, 6):
        x = torch.rand(2, 1, 4) * 9
        torch.testing.assert_close(compiled(mine, x, p), step(k, x, p))
        assert torch.equal(mine.float(), k.float())
    assert fxpass.reports()[-1].rewritten >= 2
