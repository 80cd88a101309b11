"""``options={"verify": n}``: wrong rewrites are found and shown; right ones are left in peace."""

from __future__ import annotations

import copy
import os
import pathlib
import re
import runpy
import sys
from typing import Any

import pytest
import torch
from forked import Forked
from small_models import CACHES, Attention, ItemCache, StartPos, kvfix, same_step, steps
from torch import Tensor
from torch.nn.functional import dropout

import fxpass
from fxpass import KvfixError, backend
from fxpass.analysis import extents
from fxpass.index_tensors import mirror

BROKEN = """
from fxpass.analysis import extents
extents.Flow.fill = lambda *args: None
"""
"""The invalid part of what is read is not cleaned."""


@torch.no_grad()
def found(model: Any, cache: Any, compiler: str = "eager", **options: Any) -> str:
    """What is said while all steps run; fails where nothing is."""
    compiled = kvfix(model, compiler, verify=9, **options)
    with pytest.raises(KvfixError) as raised:
        for x in steps():
            compiled(x, cache)
    return str(raised.value)


def shown_by(said: str) -> pathlib.Path:
    match = re.search(r"shown alone by (\S+)", said)
    assert match, said
    return pathlib.Path(match[1])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(extents.Flow, "fill", lambda *args: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.usefixtures("broken")
def test_a_broken_rule_is_found(kind: str, compiler: str) -> None:
    """The first value, the lines of the model, and a script that exits with 1 under the broken rule and 0 without."""
    said = found(Attention(), CACHES[kind](fill=float("nan")), compiler)
    assert re.search(r"graph 1, call 1: .* result 0 at \[0, 0, 0\]: nan with kvfix, -?\d\S+ without", said)
    assert re.search(r"small_models\.py:\d+: read at .*, rewritten", said)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(shown_by(said)), run_name="__main__")
    assert ended.value.code == 1


@pytest.mark.usefixtures("broken")
def test_the_script_runs_alone() -> None:
    script = shown_by(found(Attention(), ItemCache(fill=float("inf"))))
    parent = Forked("fxpass.backend", environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    for before, code, word in ((BROKEN, 1, "they differ"), ("", 0, "no difference")):
        done = parent.run(str(script), code=before, environment={})
        assert done.returncode == code and done.stdout.splitlines()[-1] == word, done.stdout + done.stderr
    parent.end()


def wrong(monkeypatch: pytest.MonkeyPatch, wrongly: Any) -> None:
    """All parts of graphs run by ``wrongly(run, args)``."""
    stock = backend.assemble

    def assemble(*args: Any, **kwargs: Any) -> Any:
        run = stock(*args, **kwargs)
        return lambda *args: wrongly(run, args)

    monkeypatch.setattr(backend, "assemble", assemble)


def raises(run: Any, args: Any) -> Any:
    raise ValueError("of ours")


def another_buffer(run: Any, args: Any) -> Any:
    results = run(*args)
    next(a for a in args if isinstance(a, Tensor) and a.dim() == 4)[0, 0, -1] += 1e-7
    return results


def another_index(run: Any, args: Any) -> Any:
    results = run(*args)
    next(a for a in args if isinstance(a, Tensor) and a.dtype is torch.int64).add_(1)
    return results


def another_shape(run: Any, args: Any) -> Any:
    return [r[None] for r in run(*args)]


WRONG = {
    raises: "it raises ValueError: ['of ours'] with kvfix, it runs without",
    another_index: "input L_cache_index at [0]: 6 with kvfix, 5 without (1 of 1 values differ, bitwise)",
    another_shape: "result 0: torch.float32[1, 2, 1, 8] on cpu with kvfix, torch.float32[2, 1, 8] on cpu without",
}


@pytest.mark.parametrize("wrongly", WRONG, ids=lambda f: f.__name__)
def test_a_wrong_hand_off_is_found(wrongly: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    wrong(monkeypatch, wrongly)
    assert WRONG[wrongly] in found(Attention(), ItemCache())


def test_rows_that_are_copied_agree_bitwise(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def step(x: Tensor, cache: ItemCache) -> Tensor:
        start = cache.length
        cache.keys[:, 0, start : start + x.shape[1]] = x[..., :4]
        cache.set(start + x.shape[1])
        return cache.keys[:, 0, : cache.length].sum(1)

    wrong(monkeypatch, another_buffer)
    assert re.search(r"input L_cache_keys at \[0, 0, 15, 0\]: 1.0\S+e-07 .* bitwise", found(step, ItemCache()))


def test_what_cannot_be_saved_is_told_all_the_same(broken: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(torch, "save", full)
    said = found(Attention(), ItemCache(fill=float("nan")))
    assert "result 0 at [0, 0, 0]" in said and "no script shows it alone" in said and "OSError: no space" in said


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.inductor)])
@torch.no_grad()
def test_nothing_is_disturbed(compiler: str) -> None:
    """NumberInputs, buffers, and how often index tensors are read."""
    reads = []
    for verify in (0, 9):
        fxpass.reset()
        torch._dynamo.reset()
        model, cache = Attention(), ItemCache()
        compiled, eager_cache = kvfix(model, compiler, verify=verify), copy.deepcopy(cache)
        for x in steps():
            same_step("verified", model, compiled, x, eager_cache, cache, exact=compiler != "inductor")
        reads.append((mirror.counters.refreshes, mirror.counters.hits, len(fxpass.reports())))
    assert reads[0] == reads[1]


@torch.no_grad()
def test_random_numbers_are_drawn_once() -> None:
    def step(keys: Tensor, x: Tensor, start: int) -> Tensor:
        keys[:, start : start + 1] = x
        return dropout(keys[:, : start + 1].sum(1), 0.5) + torch.rand(2)

    drawn = []
    for fn in (step, kvfix(step, verify=9)):
        torch.manual_seed(3)
        keys = torch.zeros(2, 8)
        drawn.append([fn(keys, torch.ones(2, 1), start) for start in range(6)] + [torch.rand(1)])
    for mine, theirs in zip(*drawn, strict=True):
        assert torch.equal(mine, theirs)


@torch.no_grad()
def test_inputs_that_share_memory() -> None:
    """K is V, seen twice, and read through a third view."""

    def step(k: Tensor, v: Tensor, x: Tensor, start: int) -> Tensor:
        k[:, start : start + 1] = x
        v[:, start : start + 1] *= 2
        return k[:, : start + 1].sum(1) + v[:, : start + 1].sum(1)

    mine, theirs = torch.zeros(2, 2, 8), torch.zeros(2, 2, 8)
    compiled = kvfix(step, verify=9)
    for start in range(2, 7):
        x = torch.full((2, 1), float(start))
        torch.testing.assert_close(compiled(mine[0], mine[0], x, start), step(theirs[0], theirs[0], x, start))
        assert torch.equal(mine, theirs)


def test_gradients() -> None:
    """The graph is not rewritten; it is run on copies that autograd knows, and trains as without."""
    model, other = Attention(), Attention()
    with pytest.warns(fxpass.KvfixWarning, match="grad is enabled"):
        kvfix(model, verify=9)(steps()[0], ItemCache()).sum().backward()
    other(steps()[0], ItemCache()).sum().backward()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad is not None and torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


@torch.no_grad()
def test_it_ends_after_n_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import fxpass.verify

    made: list[int] = []
    stock = fxpass.verify.copied
    monkeypatch.setattr(fxpass.verify, "copied", lambda values: made.append(1) or stock(values))
    model = StartPos()
    compiled = kvfix(model, verify=2)
    for position, x in enumerate(steps(prompt=1, decoded=9)):
        compiled(x, position)
    graphs = len(fxpass.reports())
    assert len(made) <= 2 * 2 * graphs and len(made) >= 2 * (graphs + 1)


@torch.no_grad()
def test_both_fail() -> None:
    """An error of the model's own operators is raised as it is."""

    def step(keys: Tensor, places: Tensor, start: int) -> Tensor:
        return keys[:, :start].sum(1) + keys[:, places].sum(1)

    compiled = kvfix(step, verify=9)
    for start in (2, 3):
        compiled(torch.zeros(2, 8), torch.tensor([1]), start)
    with pytest.raises(IndexError):
        compiled(torch.zeros(2, 8), torch.tensor([9]), 4)
