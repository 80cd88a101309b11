"""Who may import whom, read from the source: floors, the one boundary to torch, no cycles, state that somebody resets."""

from __future__ import annotations

import ast
import pathlib
import re
from collections import Counter
from collections.abc import Iterator

import networkx as nx
import pytest
from tools_for_docs import all_rooms, users

from fxpass.torch_internals.contracts import TABLE

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [
    {"errors", "options", "reasons"},
    {"torch_internals"},
    {"graph"},
    {"index_tensors"},
    {"analysis"},
    {"rewriting.nodes", "rewriting.outside"},
    {"rewriting.buffers", "rewriting.edits"},
    {"rewriting"},
    {"torch_internals.dynamo.names"},
    {"torch_internals.dynamo.frames"},
    {"torch_internals.dynamo.guards", "torch_internals.dynamo.graph_breaks"},
    {"torch_internals.dynamo.sizes", "torch_internals.dynamo.inputs"},
    {"torch_internals.dynamo.variables"},
    {"torch_internals.dynamo.calls"},
    {"torch_internals.dynamo", "torch_internals.inductor"},
    {"torch_internals.precompile"},
    {"torch_internals.install"},
    {"kernels.launches"},
    {"kernels.functions"},
    {"kernels.products", "kernels.writes", "kernels.for_inductor"},
    {"kernels.attention"},
    {"kernels"},
    {"report"},
    {"execute.partition"},
    {"execute.recording"},
    {"execute.buffers", "execute.compilation"},
    {"execute.calls"},
    {"execute.plans", "execute.precompile"},
    {"verify"},
    {"api"},
    {"backend"},
    {"tools"},
]
"""From the lowest: a file imports from its own floor and from those below. The boundary has two: names and patches, which all
build on, and what is taught to Dynamo and Inductor, which builds on the model of index tensors and on the dialect of graphs."""
FILES = sorted((ROOT / "fxpass").rglob("*.py"))


def module(file: pathlib.Path) -> str:
    """``graph.numbers`` for fxpass/graph/numbers.py."""
    name = ".".join(file.relative_to(ROOT / "fxpass").with_suffix("").parts)
    return name.removesuffix(".__init__")


def room(name: str) -> str:
    """The entry of `FLOORS` that the module ``name`` belongs to."""
    rooms = {r for floor in FLOORS for r in floor}
    while name not in rooms and "." in name:
        name = name.rpartition(".")[0]
    return name


MODULES = {module(file) for file in FILES}


def imports(file: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """The modules of fxpass that ``file`` imports, and whether it does so when it is imported itself."""
    tree = ast.parse(file.read_text())
    package = module(file) if file.name == "__init__.py" else module(file).rpartition(".")[0]
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(["fxpass", *up, *([node.module] if node.module else [])])
            if base.split(".")[0] == "fxpass":
                for alias in node.names:
                    whole = f"{base}.{alias.name}".removeprefix("fxpass.")
                    yield whole if whole in MODULES else base.removeprefix("fxpass").removeprefix("."), node not in inside


@pytest.mark.parametrize("file", FILES, ids=module)
def test_nothing_is_imported_from_a_higher_floor(file: pathlib.Path) -> None:
    floors = {r: i for i, floor in enumerate(FLOORS) for r in floor}
    own = room(module(file))
    if own in ("", "__init__", "__main__"):
        return
    for name, _ in imports(file):
        assert floors[room(name)] <= floors[own], f"{module(file)} imports {name}"


def test_packages_import_each_other_in_no_circle() -> None:
    graph = nx.DiGraph()
    for file in FILES:
        graph.add_edges_from((room(module(file)), room(name)) for name, _ in imports(file) if room(name) != room(module(file)))
    assert nx.is_directed_acyclic_graph(graph), nx.find_cycle(graph)


def test_modules_import_each_other_in_no_circle() -> None:
    graph = nx.DiGraph((module(file), name) for file in FILES for name, at_import in imports(file) if at_import)
    assert nx.is_directed_acyclic_graph(graph), nx.find_cycle(graph)


def test_no_two_classes_have_one_name() -> None:
    found: dict[str, list[str]] = {}
    for file in (*FILES, *(ROOT / "toto_model").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(file))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_functions_of_one_name_are_families() -> None:
    """Hooks are installed, state is forgotten, kernels are launched, guards ask the mirror, rules are called as operators."""
    families = {"install", "uninstall", "forget", "reset", "launches"}
    guards = {"all_agree", "computed", "disjoint", "evaluate", "read", "values"}  # guards/functions.py: what they ask
    rules = {"split"}  # of index_tensors/indexing.py, called as its operator
    found: dict[str, list[str]] = {}
    for file in FILES:
        if not module(file).startswith("analysis.rules."):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(module(file))
    shared = {name: files for name, files in found.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in families | guards | rules} == {}
    assert all("torch_internals.dynamo.guards.functions" in shared[name] and len(shared[name]) == 2 for name in guards)
    assert all("index_tensors.indexing" in shared[name] and len(shared[name]) == 2 for name in rules)


@pytest.mark.parametrize("file", FILES, ids=module)
def test_a_function_is_read_at_once(file: pathlib.Path) -> None:
    """At most 45 lines without its docstring; a kernel for Triton, which is one text, may be longer."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and "triton.jit" not in "".join(map(ast.unparse, node.decorator_list)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            assert lines <= 45, f"{module(file)}.{node.name}: {lines} lines"


@pytest.mark.parametrize("file", FILES, ids=module)
def test_assertions_do_nothing(file: pathlib.Path) -> None:
    """``python -O`` leaves them out, and a comparison of symbols is a guard: they are for the type checker alone."""
    does = (ast.Compare, ast.Call, ast.NamedExpr)
    for node in (n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Assert)):
        parts = node.test.values if isinstance(node.test, ast.BoolOp) else [node.test]
        texts = [ast.unparse(part) for part in parts if isinstance(part, does)]
        assert all(t.startswith("isinstance(") or t.endswith("is not None") for t in texts), f"line {node.lineno}: {texts}"


def test_no_package_hides_its_modules() -> None:
    """``from .write import html`` in a package with a file html.py would leave no way to import the file by its name."""
    for file in FILES:
        if file.name == "__init__.py":
            own = {m.stem for m in (*file.parent.glob("*.py"), *file.parent.glob("*/"))}
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    hidden = own & {alias.asname or alias.name for alias in node.names}
                    assert not hidden, f"{module(file)}: {hidden}"


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without ``__init__.py`` can be imported all the same, but is missing where packages are listed."""
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    """A test that is called after a file, or a folder, of fxpass lies in the folder of tests that its room has."""
    places: dict[str, set[pathlib.Path]] = {}
    for file in FILES:
        path = file.relative_to(ROOT / "fxpass").with_suffix("")
        for part in (path, *path.parents):
            places.setdefault(part.name, set()).update({part, part.parent})
    for test in (ROOT / "tests").rglob("test_*.py"):
        folder, tested = test.parent.relative_to(ROOT / "tests"), places.get(test.stem.removeprefix("test_"))
        assert not tested or folder in tested or folder.name == "gpu", f"{test.name} lies in {folder}, and not in {tested}"


def test_every_room_is_described() -> None:
    page = (ROOT / "docs" / "rooms.md").read_text()
    assert [path for path in all_rooms() if f"| [`{path.rpartition('/')[2]}`](../{path}) |" not in page] == []


def test_a_room_of_many_files_says_which_holds_what() -> None:
    """In the docstring of its `__init__`, or by importing them all."""
    rooms = Counter(file.parent for file in FILES)
    large = [room for room, files in rooms.items() if files > 12]
    assert len(large) >= 4
    for room in large:
        said = set(re.findall(r"\w+", (room / "__init__.py").read_text()))
        assert {file.stem for file in room.glob("*.py")} - said == {"__init__"}, room


def _private(name: str) -> bool:
    return name.split(".")[0] == "torch" and any(p.startswith("_") and not p.startswith("__") for p in name.split(".")[1:])


@pytest.mark.parametrize("file", FILES, ids=module)
def test_private_names_of_torch_come_through_the_table(file: pathlib.Path) -> None:
    """No file imports or spells one out, not even in torch_internals: `internal` and `patch` take its name as text."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Call):
            found = [ast.unparse(node)]
        else:
            continue
        for name in found:
            experimental = name.startswith("torch.fx.experimental")
            assert not experimental and (not _private(name) or name.startswith("torch.ops.")), f"{name}, line {node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=module)
def test_nothing_of_torch_is_assigned_to(file: pathlib.Path) -> None:
    """`setattr`, and an assignment to ``torch.x.y``, stand in patches.py alone."""
    if module(file) == "torch_internals.patches":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
        for target in targets:
            assert not ast.unparse(target).startswith("torch."), f"line {node.lineno}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            assert not ast.unparse(node.args[0]).startswith("torch"), f"line {node.lineno}"


def test_every_name_of_the_table_is_used() -> None:
    assert set(users()) == set(TABLE)
