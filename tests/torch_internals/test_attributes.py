"""Private attributes of torch's objects: the table names them all, and without one of them nothing is wrong."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from test_architecture import FILES, ROOT

from fxpass.torch_internals.attributes import ATTRIBUTES

OF_OTHERS = {"_asdict", "_replace", "_print", "_getframe"}
"""Of named tuples, of SymPy's printers, and of `sys`."""


def own(tree: ast.Module) -> Iterator[str]:
    """The names that ``tree`` defines or assigns to."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            yield from (n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "self")


def asked_for(tree: ast.Module) -> Iterator[str]:
    """The attributes of objects that ``tree`` asks for; those of operators and of modules of ours are other names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not ast.unparse(node.value).startswith(("aten", "torch.ops", "mirror")):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            yield from (str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant))


def private(file: pathlib.Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {name for name in asked_for(tree) if name.startswith("_") and not name.startswith("__")} - set(own(tree)) - OF_OTHERS


def test_the_table_is_complete() -> None:
    assert {name for file in FILES for name in private(file)} == {name.rpartition(".")[2] for name in ATTRIBUTES}


WITHOUT_EACH = """
import ast, importlib.abc, importlib.machinery, json, sys, warnings
import torch
import torch._dynamo

torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0  # as in conftest.py


class Renamed(ast.NodeTransformer):
    def visit_Attribute(self, node):
        self.generic_visit(node)
        node.attr = "gone" if node.attr == name else node.attr
        return node


class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, module):
        source = self.get_data(self.path)
        if name.encode() not in source:
            return super().get_code(module)
        tree = Renamed().visit(ast.parse(source))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, module, path, target=None):
        spec = importlib.machinery.PathFinder.find_spec(module, path) if module.split(".")[0] == "fxpass" else None
        if spec is not None and str(spec.origin).endswith(".py"):
            spec.loader = Loader(module, spec.origin)
        return spec


def step(c, i, x, w):
    p = int(i[0].item())
    c[:, p : p + 1] = x @ w
    i += 1
    return c[:, : p + 1].cumsum(1).sum(1) if i[0] > 1 else c[:, 0] + 0


sys.meta_path.insert(0, Finder())
found = {}
for name in sys.argv[1:]:
    for module in [m for m in sys.modules if m.split(".")[0] == "fxpass"]:
        del sys.modules[module]
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        from fxpass import backend
        torch._dynamo.reset()
        compiled = torch.compile(step, backend=backend.kvfix, options={"compiler": "eager"})
        ours, theirs = ([torch.zeros(2, 8, 4), torch.zeros(1, dtype=torch.int64)] for _ in range(2))
        for _ in range(3):
            x, w = torch.rand(2, 1, 4), torch.eye(4)
            assert torch.equal(compiled(*ours, x, w), step(*theirs, x, w)), name
            assert all(map(torch.equal, ours, theirs)), name
    found[name] = [str(w.message) for w in caught if w.category.__name__ == "KvfixWarning"]
    sys.modules["fxpass"].uninstall()
print(json.dumps(found))
"""

MET = ["_version", "_base", "_erased", "_cached_guard_managers"]
"""Some that a small program comes by: in the mirror, where a part is compiled, in a hook, where a guard is made."""


def test_without_one_a_model_runs_and_a_warning_names_it() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "KVFIX_VERIFY": "0"}
    run = [sys.executable, "-c", WITHOUT_EACH, *MET]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(MET)
    for name, said in found.items():
        assert any("has no attribute 'gone'" in text for text in said), name
