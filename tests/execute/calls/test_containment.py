"""Wherever something of ours fails, the model runs on: in the pass, the hand-off, beside a call, for sizes that come later."""

from __future__ import annotations

import logging
import pickle
import warnings
from typing import Any

import pytest
import torch
from graphs import same, traced
from small_models import kvfix
from three_parts import decode, step
from torch import Tensor

import fxpass
from fxpass import KvfixError, KvfixWarning, api, backend
from fxpass.analysis.calls import CallHistory
from fxpass.execute.calls import assemble, untouched
from fxpass.execute.calls.assemble import Plan
from fxpass.execute.compilation import compilers, regions
from fxpass.execute.partition.split import split
from fxpass.execute.plans import cores
from fxpass.execute.precompile.serialized import serialize
from fxpass.index_tensors import mirror
from fxpass.options import Options


def fails(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError("of ours")


PASS: dict[str, tuple[Any, str]] = {
    "the numbers": (backend, "NumberInputs"),
    "the advance": (backend.Advance, "of"),
    "the guard on memory": (backend, "guard_disjoint"),
    "the normal form": (api, "normal_form"),
    "the rewrite": (api, "rewrite_graph"),
    "the check": (api, "check_graph"),
    "the report": (api, "kept"),
    "the marks": (backend, "generalize"),
    "the cut": (cores, "split"),
    "the check of the core": (cores, "check_core"),
    "the cores": (backend, "in_cores"),
    "assembling": (assemble, "pack"),
    "the regions": (assemble, "Region"),
}


@pytest.mark.parametrize("what", PASS)
@torch.no_grad()
def test_the_pass(what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(*PASS[what], fails)
    with pytest.warns(KvfixWarning, match="of ours"), caplog.at_level(logging.WARNING, "fxpass"):
        decode(kvfix(step))
    failing = [report for report in fxpass.reports() if report.unfit]
    assert failing and all("ZeroDivisionError: of ours" in report.unfit for report in failing)
    logged = [record for record in caplog.records if record.name == "fxpass"]
    assert len(logged) == len(failing) and all(record.exc_info for record in logged)


@pytest.mark.parametrize("what", [(mirror, "advance"), (CallHistory, "see")], ids=["the mirror", "the history"])
@torch.no_grad()
def test_beside_a_call(what: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*what, fails)
    with pytest.warns(KvfixWarning, match="of ours") as said:
        decode(kvfix(step))
    assert len([w for w in said if issubclass(w.category, KvfixWarning)]) == 1
    assert fxpass.reports()[-1].rewritten == 2


def later_variants_fail(monkeypatch: pytest.MonkeyPatch, part: str, when: str) -> None:
    """Let the part called ``part`` fail where it is compiled for the second time: then, or once that has run."""
    stock, compiled = regions.Region._compile, []

    def compile(self: Any, *args: Any) -> Any:
        run = stock(self, *args)
        if self.part.name != part:
            return run
        compiled.append(part)
        if len(compiled) == 1:
            return run
        if when == "compiled":
            fails()
        return lambda *now: (run(*now), fails())

    monkeypatch.setattr(regions.Region, "_compile", compile)
    if part != "core":  # one that grows is compiled anew where what was assumed of its sizes does not hold
        monkeypatch.setattr(regions, "_predicate", lambda guards: lambda args: len(args[0]) < 7)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("when", ["compiled", "run"])
@pytest.mark.parametrize("part", ["prologue", "core", "epilogue"])
@torch.no_grad()
def test_a_later_variant(
    part: str, when: str, compiler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    later_variants_fail(monkeypatch, part, when)
    with pytest.warns(KvfixWarning, match="of ours"), caplog.at_level(logging.WARNING, "fxpass"):
        decode(kvfix(step, compiler=compiler), capacities=(8, 12))
    assert any("ZeroDivisionError: of ours" in report.unfit for report in fxpass.reports())
    assert len([record for record in caplog.records if record.exc_info and record.name == "fxpass"]) == 1


@torch.no_grad()
def test_a_later_variant_is_an_error_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    later_variants_fail(monkeypatch, "core", "run")
    with pytest.raises(KvfixError, match="of ours"):
        decode(kvfix(step, strict=True), capacities=(8, 12))


@torch.no_grad()
def test_cores_that_cannot_be_made_anew(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A number that was taken for a variant moves, and the graph cannot be cut again."""

    def step(k: Tensor, x: Tensor, encoded: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        return (k[:, : p + 1].sum(1, keepdim=True) * encoded).sum(1)

    monkeypatch.setattr(backend.NumberInputs, "correct", fails)
    compiled, k = kvfix(step), torch.zeros(2, 90)
    mine = k.clone()
    with pytest.warns(KvfixWarning, match="of ours"), caplog.at_level(logging.WARNING, "fxpass"):
        for p in range(30):
            x, encoded = torch.rand(2, 1), torch.rand(2, 4 + p // 3)
            torch.testing.assert_close(compiled(mine, x, encoded, p), step(k, x, encoded, p))
            assert torch.equal(mine, k)
    assert len([record for record in caplog.records if record.exc_info and record.name == "fxpass"]) == 1


@pytest.mark.parametrize("when", ["compiled", "run"])
@torch.no_grad()
def test_pieces(when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Layers that repeat, in a graph that nothing is rewritten in."""

    def layers(k: Tensor, x: Tensor) -> Tensor:
        k += x
        return k.sum(1) * 2

    def pieces(normal: torch.fx.GraphModule, *args: Any) -> Any:
        return fails() if when == "compiled" else lambda *now: (normal(*now), fails())

    monkeypatch.setattr(untouched, "_pieces", pieces)
    compiled, k = kvfix(layers, compiler="aot_eager"), torch.zeros(2, 8)
    mine = k.clone()
    with pytest.warns(KvfixWarning, match="of ours"), caplog.at_level(logging.WARNING, "fxpass"):
        for _ in range(3):
            x = torch.rand(2, 8)
            torch.testing.assert_close(compiled(mine, x), layers(k, x))
            assert torch.equal(mine, k)
    assert len([record for record in caplog.records if record.exc_info and record.name == "fxpass"]) == 1


@pytest.mark.parametrize("cut", [True, False], ids=["in parts", "whole"])
@pytest.mark.parametrize("when", ["compiled", "run"])
def test_what_another_process_loads(cut: bool, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no graph of Dynamo's to go back to, and runs its own uncompiled."""

    def write(cache: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        cache.add_(x)
        return x + cache.sum(0), cache[0]

    def arguments() -> list[Tensor]:
        return [torch.zeros(3, 4), torch.ones(4)]

    gm = traced(write, arguments())
    plan = Plan(gm, split(gm, set()), set()) if cut else Plan(gm)
    told: list[Exception] = []

    def broken(gm: torch.fx.GraphModule, *args: Any) -> Any:
        return fails() if when == "compiled" else lambda *now: (gm(*now), fails())

    monkeypatch.setattr(compilers, "_aot_eager", broken)
    loaded = pickle.loads(pickle.dumps(serialize(plan, Options(compiler="aot_eager")))).compile(told.append)
    assert same(loaded, gm, arguments()) and same(loaded, gm, arguments())
    assert [str(error) for error in told] == ["of ours"]


class Stacked:
    def __init__(self) -> None:
        self.lens, self.kv = [0, 0], torch.zeros(2, 8, 3, 3, 4)


@pytest.mark.parametrize("place", ["ring", "row by index", "in place"])
@torch.no_grad()
def test_views_of_one_memory_outside_of_the_core(place: str) -> None:
    """Of memory whose size is a symbol a part takes two views and writes one: AOTAutograd makes no base for them, and the part
    runs as it is. The graph stays one."""

    def views(c: Stacked, x: Tensor) -> tuple[Tensor, Tensor]:
        p, q, n = *c.lens, x.shape[1]
        k, v, j = c.kv[..., 0], c.kv[..., 2], q % 8
        k[:, p : p + n] = x
        rest = k[:, p:]
        if place == "ring":
            v[:, j : j + 1] = (x * 3)[:, :1]
        elif place == "row by index":
            v[:, j] = x[:, 0] * 3
        else:
            v[:, j : j + 1].copy_(x[:, :1]).mul_(3)
        valid = v[:, : q + n].contiguous()
        c.lens[0] += n
        c.lens[1] += n
        return rest, torch.einsum("bthd,bthd->bhd", valid, valid)

    compiled = torch.compile(views, backend="kvfix", options={"compiler": "aot_eager"})
    ours, theirs = Stacked(), Stacked()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KvfixWarning)  # `rest` is returned, and said to be refused
        for n in (4, 1, 1, 1):
            x = torch.randn(2, n, 3, 3)
            torch.testing.assert_close(compiled(ours, x), views(theirs, x))
            assert torch.equal(ours.kv, theirs.kv)
    assert len(fxpass.reports()) == 2 and not any(report.unfit for report in fxpass.reports())
