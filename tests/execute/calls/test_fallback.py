"""A fault of a part, wherever it arises, leaves eager's results and buffers, and a word about it."""

from __future__ import annotations

import logging

import pytest
import torch
from small_models import breaks, kvfix
from three_parts import decode, step
from torch import Tensor

import fxpass
from fxpass import KvfixError, KvfixWarning
from fxpass.execute.compilation import regions

EVERY = pytest.mark.parametrize(
    "compiler", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.inductor)]
)


def faulty(monkeypatch: pytest.MonkeyPatch, part: str, when: str) -> None:
    """Let the part called ``part`` fail when it is compiled, or when it has run."""
    stock = regions.Region._compile

    def compile(self, fakes, mode, bound):
        run = stock(self, fakes, mode, bound)
        if self.part.name != part:
            return run
        if when == "compiled":
            raise ValueError("a fault of ours")

        def fails(*args):
            run(*args)
            raise ValueError("a fault of ours")

        return fails

    monkeypatch.setattr(regions.Region, "_compile", compile)


@EVERY
@pytest.mark.parametrize("when", ["compiled", "run"])
@pytest.mark.parametrize("part", ["prologue", "core", "epilogue"])
@torch.no_grad()
def test_a_part_that_fails(part: str, when: str, compiler: str, monkeypatch: pytest.MonkeyPatch, caplog):
    faulty(monkeypatch, part, when)
    with pytest.warns(KvfixWarning, match="a fault of ours") as said, caplog.at_level(logging.WARNING, "fxpass"):
        decode(kvfix(step, compiler=compiler), steps=6)
    failing = [r for r in fxpass.reports() if r.unfit]
    assert failing and all("ValueError: a fault of ours" in r.unfit for r in failing)
    assert len([w for w in said if issubclass(w.category, KvfixWarning)]) == len(failing)
    logged = [r for r in caplog.records if r.name == "fxpass"]
    assert len(logged) == len(failing) and all(r.exc_info for r in logged)
    assert breaks() == 0


@torch.no_grad()
def test_strict_raises(monkeypatch: pytest.MonkeyPatch):
    faulty(monkeypatch, "core", "run")
    with pytest.raises(KvfixError, match="a fault of ours"):
        decode(kvfix(step, strict=True), steps=6)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_an_error_of_the_model_is_its_own(compiler: str):
    """Nothing is written twice, nothing taken for a fault of ours, and the next call works."""

    def looked_up(k: Tensor, x: Tensor, p: int, by: Tensor) -> Tensor:
        k[:, p : p + 1] += x
        return k[:, : p + 1].sum(1) + k.index_select(1, by).sum(1)

    compiled, k = kvfix(looked_up, compiler=compiler), torch.zeros(2, 8)
    mine = k.clone()
    for p, at in ((2, 1), (3, 99), (3, 1), (4, 2)):
        x, by = torch.rand(2, 1), torch.tensor([at])
        if at == 99:
            with pytest.raises((IndexError, RuntimeError), match="(?i)ind"):
                compiled(mine, x, p, by)
            once = k.clone()
            with pytest.raises((IndexError, RuntimeError)):
                looked_up(once, x, p, by)
            assert torch.equal(mine, once) or torch.equal(mine, k)  # before the error, or not at all; never twice
            mine.copy_(k)
            continue
        torch.testing.assert_close(compiled(mine, x, p, by), looked_up(k, x, p, by))
        assert torch.equal(mine, k)
    assert not any(r.unfit for r in fxpass.reports())
