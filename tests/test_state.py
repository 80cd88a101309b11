"""What is remembered between calls: docs/state.md lists all of it, and resets let go of it."""

from __future__ import annotations

import ast
import gc
import importlib
import pathlib
import re
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_models import kvfix
from test_architecture import FILES, ROOT, module
from torch import Tensor

import fxpass
from fxpass.execute.compilation.regions import Region
from fxpass.report import store

_NOT_STATE = {"internal", "logging.getLogger", "re.compile", "typer.Typer", "threading.RLock", "getattr",
              "TypeVar"}  # fmt: skip
_MUTABLE = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp, ast.Call)
_CHANGES = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault", "update"}
ROWS = re.findall(r"^\| `([\w.]+)` \|.*\| ([^|]+) \|$", (ROOT / "docs/state.md").read_text(), re.M)


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node.value, _MUTABLE):  # type: ignore[attr-defined]
                yield target.id, node.value  # type: ignore[attr-defined]


def is_table(name: str) -> bool:
    return name.lstrip("_").isupper() or name == "__all__"


def state(file: pathlib.Path) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    for name, value in assigned(tree):
        called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
        if not is_table(name) and called not in _NOT_STATE:
            yield name
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(d) for d in node.decorator_list):
            yield node.name
    tables = {name for name, _ in assigned(tree) if is_table(name)}
    yield from sorted(tables & set(changed(tree)))


def changed(tree: ast.Module) -> Iterator[str]:
    """The names of which a function changes what they hold."""
    for function in ast.walk(tree):
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(node, ast.Global):
                yield from node.names
            elif isinstance(node, (ast.Assign, ast.Delete)):
                yield from (t.value.id for t in node.targets if isinstance(t, ast.Subscript) and isinstance(t.value, ast.Name))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
                yield ast.unparse(node.func.value)


def test_the_table_is_complete() -> None:
    found = [f"{module(file)}.{name}" for file in FILES for name in state(file)]
    assert sorted(found) == sorted(name for name, _ in ROWS)


def held(name: str) -> Any:
    place, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(f"fxpass.{place}"), last)
    if name == "report.store._made":
        return len(value.reports), value.total
    return (value.hits, value.refreshes) if last == "counters" else len(value)


RESET = [name for name, how in ROWS if "both resets" in how]


def step(keys: Tensor, idx: Tensor, x: Tensor) -> Tensor:
    p = int(idx[0].item())
    keys[:, p : p + 1] = x
    idx[0] = p + 1
    return keys[:, : p + 1].sum(1)


@torch.no_grad()
@pytest.mark.parametrize("reset", [fxpass.reset, torch._dynamo.reset], ids=["fxpass", "dynamo"])
def test_a_reset_lets_go_of_it(reset: Callable[[], None]) -> None:
    compiled, keys, idx = kvfix(step, compiler="eager"), torch.zeros(2, 8), torch.tensor([2])
    for _ in range(3):
        compiled(keys, idx, torch.ones(2, 1))
    before = {name: held(name) for name in RESET}
    assert before["report.store._made"] > (0, 0) and before["index_tensors.mirror._entries"]
    assert before["torch_internals.dynamo.frames.history._frames"]
    reset()
    assert all(held(name) in (0, (0, 0)) for name in RESET)


@torch.no_grad()
def test_what_was_compiled_goes_with_its_function() -> None:
    compiled, keys, idx = kvfix(step, compiler="eager"), torch.zeros(2, 8), torch.tensor([2])
    old = [r for r in gc.get_objects() if type(r) is Region]
    for _ in range(3):
        compiled(keys, idx, torch.ones(2, 1))
    made = [weakref.ref(r) for r in gc.get_objects() if type(r) is Region and not any(r is o for o in old)]
    assert made
    del compiled
    torch._dynamo.reset()
    gc.collect()
    assert not any(r() for r in made)


def test_reports_are_bounded() -> None:
    store.reset()
    for _ in range(store.MOST_REPORTS + 5):
        store.add(store.new_report())
    names = [report.name for report in fxpass.reports()]
    assert len(names) == store.MOST_REPORTS and (names[0], names[-1]) == ("graph 5", f"graph {store.MOST_REPORTS + 4}")
    store.reset()
