"""A fault of what hooks call costs the user nothing: torch goes on without it, with one warning, and the report says so. The
hooks themselves: test_hooks_that_raise.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchRuntimeError, Unsupported

import fxpass
from fxpass.index_tensors import address_ranges, formula, mirror
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.sizes import dynamism
from fxpass.torch_internals.dynamo.variables import guarded_numbers
from fxpass.torch_internals.patches import patch_attribute


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor, idx: Tensor, cache: Tensor, p: int) -> Tensor:
        start = int(idx[0].item())
        cache[:, start : start + 1] = x
        idx += 1
        self.seen += 1
        scale = 2 if idx[0] > 3 else 1
        return cache[:, : idx[0]].sum(1) * scale + sum(idx.tolist()) + p + self.seen


def fails(*args: Any, **kwargs: Any) -> Any:
    raise KeyError("of ours")


HOOKS: dict[str, tuple[Any, str]] = {
    "_create_proxy, slices": (dynamism, "see_slice"),
    "_element": (guarded_numbers, "see_elements"),
    "a step of the table": (Table, "_step"),
    "a rule's operand": (Table, "_operand"),
    "the advance": (Table, "moved"),
}


@torch.no_grad()
def same_steps(steps: int = 5) -> None:
    eager, ours = Model(), torch.compile(Model(), backend="kvfix", options={"compiler": "eager"})
    states = [(torch.zeros(2, 1, dtype=torch.int64).reshape(2), torch.zeros(2, 8)) for _ in range(2)]
    for p in range(steps):
        x = torch.full((2, 1), 1.0 + p)
        results = [model(x, *state, p) for model, state in zip((eager, ours), states, strict=True)]
        assert torch.equal(*results), p
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)), p


@pytest.mark.parametrize("name", HOOKS)
def test_torch_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute = HOOKS[name]
    monkeypatch.setattr(owner, attribute, fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same_steps()
    told = [str(w.message) for w in caught if issubclass(w.category, fxpass.KvfixWarning)]
    reports = fxpass.reports()
    assert reports
    if name != "the advance":  # fails in the backend
        told = [text for text in told if "KV602" in text]
        assert len(told) == len(set(told)) and "KeyError: 'of ours'" in told[0] and "Traceback" in told[0]
        assert any("KeyError" in fault for r in reports for fault in r.faults)
        assert "KeyError" in "".join(map(str, reports))


@pytest.mark.parametrize("after", range(1, 12))
def test_a_table_that_fails_midway_knows_nothing_more(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever op it fails at, what it has half done is not believed."""
    stock, count = Table._step, [0]

    def step(self: Table, node: Any) -> None:
        count[0] += 1
        if count[0] == after:
            raise KeyError("of ours")
        stock(self, node)

    monkeypatch.setattr(Table, "_step", step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_steps()
    assert count[0] >= after


def test_where_a_guard_cannot_be_made_the_frame_is_compiled_as_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    from fxpass.torch_internals.dynamo.guards import builder
    from fxpass.torch_internals.dynamo.guards.sources import PositionSource

    monkeypatch.setitem(builder._MANAGERS, PositionSource, fails)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_steps()


class Owner:
    calls = 0

    def double(self, n: int) -> int:
        Owner.calls += 1
        if n < 0:
            raise ValueError("negative")
        return 2 * n


def behind(stock: Callable[..., int], self: Owner, n: int) -> int:
    result = stock(self, n)
    raise KeyError(result)


def before(stock: Callable[..., int], self: Owner, n: int) -> int:
    raise KeyError(n)


def on_purpose(stock: Callable[..., int], self: Owner, n: int) -> int:
    raise Unsupported("on purpose") if n else fxpass.KvfixError("on purpose")


@pytest.fixture
def owner() -> Any:
    return type("Own", (Owner,), {"double": lambda self, n: Owner.double(self, n)})


@pytest.mark.parametrize("hook", [behind, before])
def test_stock_is_called_once(hook: Callable[..., int], owner: Any) -> None:
    patch_attribute(owner, "double", hook)
    Owner.calls = 0
    with pytest.warns(fxpass.KvfixWarning, match=f"its hook {hook.__name__} failed"):
        assert owner().double(3) == 6
    assert owner().double(4) == 8  # told once
    assert Owner.calls == 2
    with pytest.raises(ValueError, match="negative"):
        owner().double(-1)


def test_what_is_raised_on_purpose_goes_on(owner: Any) -> None:
    patch_attribute(owner, "double", on_purpose)
    with pytest.raises(Unsupported):
        owner().double(1)
    with pytest.raises(fxpass.KvfixError):
        owner().double(0)


class Rows(torch.nn.Module):
    """Has guards of each kind: an element, what many elements make, elements that agree, tensors that lie apart."""

    def forward(self, x: Tensor, idx: Tensor, lens: Tensor, cache: Tensor) -> Tensor:
        start, end = int(idx[0].item()), int(lens.max())
        cache[:, start : start + 1] = x
        idx += 1
        lens += 1
        return cache[:, :end].sum(1) + int(lens[0] + lens[1])


GUARDS: dict[str, tuple[Any, str]] = {
    "an element": (mirror, "read"),
    "all elements": (mirror, "values"),
    "what lies in memory": (mirror, "_load"),
    "what many elements make": (formula, "evaluate"),
    "elements that agree": (mirror, "all_agree"),
    "tensors that lie apart": (address_ranges, "disjoint"),
}


@pytest.mark.parametrize(("name", "from_call"), [*((name, 1) for name in GUARDS), ("all elements", 0), ("an element", 3)])
@torch.no_grad()
def test_a_guard_that_raises_does_not_hold(name: str, from_call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is compiled anew; where that needs the guard again, as stock does it. One warning shows the fault."""
    owner, attribute = GUARDS[name]
    eager, ours = Rows(), torch.compile(Rows(), backend="kvfix", options={"compiler": "eager"})
    states = [[torch.zeros(1, dtype=torch.int64), torch.tensor([0, 0, 1]), torch.zeros(2, 8)] for _ in range(2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in range(5):
            if call == from_call:
                monkeypatch.setattr(owner, attribute, fails)
            x = torch.full((2, 1), 1.0 + call)
            results = [model(x, *state) for model, state in zip((eager, ours), states, strict=True)]
            torch.testing.assert_close(*results)
            assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)), call
    told = [str(w.message) for w in caught if issubclass(w.category, fxpass.KvfixWarning)]
    assert len(told) == len(set(told))
    assert any("KeyError: 'of ours'" in text and "Traceback" in text for text in told)


def assign(k: Tensor, x: Tensor, p: Any) -> Tensor:
    k[:, p] = x[:, 0]
    return k


PLACES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "read": lambda k, x, p: k[:, p] + x[:, 0],
    "written": assign,
    "from the end": lambda k, x, p: k[:, -p - 1] + x[:, 0],
    "in two dims": lambda k, x, p: k[p - 3, p] + 1,
    "of a tensor": lambda k, x, p: k[:, torch.tensor(p)] + 1,
    "of a slice": lambda k, x, p: k[:, :6][:, p - 1] + 1,
}


@torch.no_grad()
@pytest.mark.parametrize("name", PLACES)
def test_what_a_model_raises_is_no_fault(name: str) -> None:
    """A row that is not there: an IndexError as in eager, and no fault of a hook. Before torch 2.13 it is an error of the fake
    tensors where Dynamo meets it, and where it meets none, the graph that raises is refused."""
    error = IndexError if torch.__version__ >= "2.13" else (IndexError, TorchRuntimeError)
    model = PLACES[name]
    compiled = torch.compile(lambda k, x, p: model(k, x, p), backend="kvfix", options={"compiler": "eager"})
    k, x = torch.rand(4, 8, 2), torch.rand(4, 1, 2)
    for p in (3, 4, 5):
        torch.testing.assert_close(compiled(k.clone(), x, p), model(k.clone(), x, p))
    for p in (8, 9):
        with pytest.raises(error), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled(k.clone(), x, p)
    torch.testing.assert_close(compiled(k.clone(), x, 4), model(k.clone(), x, 4))
    assert not [fault for report in fxpass.reports() for fault in report.faults]
