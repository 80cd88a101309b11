"""The table of what is private in torch: complete, true of this torch, and what it says of a missing name is what happens."""

from __future__ import annotations

import functools
import inspect
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from tools_for_docs import internals_page

import fxpass
from fxpass.torch_internals import contracts, features
from fxpass.torch_internals.contracts import TABLE, Feature
from fxpass.torch_internals.lookup import Missing

ROOT = pathlib.Path(__file__).parents[2]
SHARE = 1 if os.environ.get("KVFIX_EVERY_NAME") else 8
"""What is computed without a name is tried for one of so many, and for the first of each feature, which fares as its others do.
What is lost and said without it is seen for each."""

BREAK_IN_TURN = """
import importlib, inspect, json, sys, warnings
import torch
import torch._dynamo

torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0  # as in conftest.py
share, how = int(sys.argv[1]), sys.argv[2]
sys.dont_write_bytecode = False  # what is imported anew is not compiled anew
from fxpass.torch_internals.contracts import TABLE
from fxpass.torch_internals.lookup import resolve

rows = [row for row in TABLE.values() if row.applies() and (how == "gone" or row.parameters)]
for row in rows:
    row.resolve()  # whatever torch imports late is there before anything is taken away


def take_away(name):
    owner, _, last = name.rpartition(".")
    owner = resolve(owner)
    held, module = vars(owner).get(last, getattr(owner, last)), sys.modules.get(name)
    if how == "gone":
        handed_on = getattr(owner, "m", None)  # a module with properties, as those of torch.backends, has another behind it
        if handed_on is not None:
            setattr(owner, last, held)
            delattr(handed_on, last)
        delattr(owner, last)
        if module is not None:
            sys.modules[name] = None
    else:
        setattr(owner, last, lambda other, parameters: None)

    def put_back():
        setattr(owner, last, held)
        if how == "gone" and handed_on is not None:
            setattr(handed_on, last, held)
        if module is not None:
            sys.modules[name] = module

    return put_back


def decode():
    def sums(c, i):
        return c[:, : i[0].item() + 1].cumsum(1).sum(1)

    step = torch.compile(sums, backend=backend.kvfix, options={"compiler": "eager"})
    for position in (1, 2, 3):
        rows = torch.arange(16.0).view(2, 8)
        assert torch.equal(step(rows, torch.tensor([position])), rows[:, : position + 1].cumsum(1).sum(1))
    return sum(torch._dynamo.utils.counters["graph_break"].values())


found, first = {}, {row.feature: row for row in reversed(rows)}
for place, row in enumerate(rows):
    for name in [m for m in sys.modules if m.split(".")[0] == "fxpass"]:
        del sys.modules[name]
    put_back = take_away(row.name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            import fxpass
            from fxpass import backend
            from fxpass.torch_internals import features
            lost = {feature.name: features.lost(feature) for feature in features.Feature}
            for feature in features.Feature:
                features.holds(feature)
        finally:
            put_back()
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        computed = place % share == 0 or first[row.feature] is row
        with torch.no_grad():
            breaks = decode() if computed else None
    found[row.name] = {
        "computed": computed,
        "lost": sorted(name for name, reason in lost.items() if reason is not None and row.name in reason),
        "said": [str(w.message) for w in caught if w.category.__name__ == "KvfixWarning"],
        "reports": len(fxpass.reports()), "breaks": breaks}
    fxpass.uninstall()
print(json.dumps(found))
"""


@pytest.mark.parametrize("how", ["gone", "another signature"])
def test_what_is_lost_without_a_name_is_what_the_table_says(how: str) -> None:
    """Each name is taken away in turn, and each function is given other parameters; a small program is then compiled."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "KVFIX_VERIFY": "0"}
    run = [sys.executable, "-c", BREAK_IN_TURN, str(SHARE), "gone" if how == "gone" else "other"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found
    for name, seen in found.items():
        feature = TABLE[name].feature
        needed = feature is Feature.NEEDED
        within = {row.feature.name for row in TABLE.values() if row.applies() and f"{row.name}.".startswith(f"{name}.")}
        rests = {f.name for f in Feature if f is not Feature.FALLBACK} if needed else within
        assert set(seen["lost"]) == rests, name
        assert any(name in said and feature.value in said for said in seen["said"]), name
        assert len(seen["said"]) == len(rests), name  # one warning a feature
        if seen["computed"]:
            assert (seen["reports"] == 0) == needed, name
            assert (seen["breaks"] > 0) == (needed or feature is Feature.CAPTURE), name
    assert {TABLE[name].feature for name, seen in found.items() if seen["computed"]} == {TABLE[name].feature for name in found}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_table_is_true_of_this_torch(row: contracts.Contract) -> None:
    assert row.broken() is None


def test_a_parameter_that_torch_adds_costs_only_what_takes_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that is handed a parameter more fails, and torch's own function runs (`patches`)."""

    def gained(row: contracts.Contract) -> str | None:
        owner, _, name = row.name.rpartition(".")
        held = inspect.unwrap(row.resolve())
        more = inspect.Parameter("more", inspect.Parameter.KEYWORD_ONLY, default=None)
        own = [p for p in inspect.signature(held).parameters.values() if p.kind is not p.VAR_KEYWORD]
        taking = functools.update_wrapper(lambda *args, **kwargs: held(*args, **kwargs), held)
        del taking.__wrapped__  # type: ignore[attr-defined]
        taking.__signature__ = inspect.Signature([*own, more])  # type: ignore[attr-defined]
        with monkeypatch.context() as torchs:
            torchs.setattr(contracts.resolve(owner), name, taking)
            return row.broken()

    replaced = [row for row in TABLE.values() if row.exact]
    assert {row.name for row in replaced} == {f"torch._dynamo.utils.call_{of}" for of in ("size", "stride")}
    assert all(gained(row) == f"{row.name} takes (x, i, more), not (x, i)" for row in replaced)
    assert gained(TABLE["torch._dynamo.variables.builder.VariableBuilder.wrap_symint"]) is None


def test_no_feature_is_lost_here() -> None:
    assert {feature: features.lost(feature) for feature in Feature} == dict.fromkeys(Feature)


def test_the_page_is_printed_from_the_table() -> None:
    """`python tests/tools_for_docs.py` writes it."""
    assert (ROOT / "docs" / "torch-internals.md").read_text() == internals_page()


def test_another_release_keeps_all_hooks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.16.0")
    features.lost.cache_clear()
    try:
        reasons = {feature: features.lost(feature) for feature in Feature}
    finally:
        features.lost.cache_clear()
    kept = {Feature.NEEDED, Feature.INDUCTOR, Feature.FALLBACK}
    assert {feature for feature, reason in reasons.items() if reason is None} == kept
    assert all("torch 2.16.0 is none of 2.11" in reason for reason in reasons.values() if reason)


PATCHED = ["torch._dynamo.optimize", "torch._dynamo.convert_frame._compile", "torch._dynamo.package.CompilePackage.install",
           "torch._dynamo.variables.TensorVariable.call_method"]  # fmt: skip


def test_importing_patches_nothing_and_uninstall_puts_all_back() -> None:
    code = f"""
import torch, fxpass
from fxpass.torch_internals.lookup import resolve
stock = [resolve(name) for name in {PATCHED}]
import torch._dynamo
assert [resolve(name) for name in {PATCHED}] == stock
torch.compile(lambda x: x, backend="kvfix")
assert not any(a is b for a, b in zip([resolve(name) for name in {PATCHED}], stock, strict=True))
fxpass.uninstall()
assert [resolve(name) for name in {PATCHED}] == stock
builder = torch._dynamo.variables.builder.VariableBuilder
assert builder._type_dispatch()[int] is builder.wrap_literal
rows = torch.arange(16.0).view(2, 8)
step = torch.compile(lambda c, i: c[:, : i[0].item()].sum(1), backend="kvfix", options={{"compiler": "eager"}})
with torch.no_grad():
    assert all(torch.equal(step(rows, torch.tensor([n])), rows[:, :n].sum(1)) for n in (1, 2, 3))
assert torch._dynamo.utils.counters["graph_break"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_name_that_is_not_there_says_so_when_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = contracts.Contract("torch._dynamo.gone_for_good", Feature.NEEDED)
    monkeypatch.setitem(TABLE, gone.name, gone)
    stand_in = contracts.internal(gone.name)
    assert not isinstance(3, stand_in)
    assert issubclass(type("Made", (stand_in[int],), {}), stand_in)
    with pytest.raises(Missing, match="gone_for_good"):
        stand_in(1, two=2)


def test_reset_of_torch_resets_kvfix() -> None:
    step = torch.compile(lambda x: x + 1, backend="kvfix", options={"compiler": "eager"})
    with torch.no_grad():
        step(torch.ones(2))
    assert fxpass.reports()
    torch.compiler.reset()
    assert not fxpass.reports()
