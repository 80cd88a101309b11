"""What one process has compiled, the next one uses without tracing, and gets the same numbers."""

from __future__ import annotations

import inspect
import io
import json
import os
import pathlib
import pickle
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from forked import Forked
from small_models import TENSOR_CACHES
from torch._dynamo.guards import GuardsStatePickler
from torch._dynamo.precompile_context import PrecompileContext

import fxpass
from fxpass.index_tensors import mirror
from fxpass.torch_internals.dynamo.frames.compilation import compiling
from fxpass.torch_internals.precompile import hooks

SCRIPT = pathlib.Path(__file__).parent / "precompiled.py"


@pytest.fixture(scope="module", autouse=True)
def parents() -> Iterator[None]:
    """Two processes with everything imported, whose forks take turns: nothing lies in one where it lies in the other."""
    environment = {**os.environ, "TORCH_CACHING_PRECOMPILE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    imported = ("small_models", "fxpass.backend", "torch._inductor.compile_fx")
    PARENTS[:] = [Forked(*imported, environment=environment) for _ in range(2)]
    yield
    for parent in PARENTS:
        parent.end()


PARENTS: list[Forked] = []


def process(cache: pathlib.Path, *args: str, code: str = "") -> dict[str, Any]:
    """What a process of its own, with the caches in ``cache``, prints; ``code`` runs before `precompiled.py` does."""
    turn = cache / "turn"
    parent = PARENTS[turn.exists()]
    turn.unlink() if turn.exists() else turn.touch()
    done = parent.run(str(SCRIPT), *args, code=code, environment={"TORCHINDUCTOR_CACHE_DIR": str(cache)})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any]]:
    """What one process with a position read by `.item()` has kept, and what it printed."""
    path = tmp_path_factory.mktemp("once")
    return path, process(path, "item", "eager", "16")


@pytest.fixture
def kept(once: tuple[pathlib.Path, dict[str, Any]], tmp_path: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """A copy of it for one test."""
    return shutil.copytree(once[0], tmp_path / "kept"), once[1]


@pytest.mark.parametrize(
    "kind, compiler", [*((kind, "eager") for kind in [*TENSOR_CACHES, "attribute"]), ("item", "aot_eager")]
)
def test_the_second_process_traces_nothing(tmp_path: pathlib.Path, kind: str, compiler: str) -> None:
    first = process(tmp_path, kind, compiler, "16")
    assert first["graphs"] >= 2 and first["rewritten"] > 0 and not first["warnings"]
    second = process(tmp_path, kind, compiler, "16")
    assert second["graphs"] == 0
    assert {k: second[k] for k in ("reports", "rewritten", "warnings")} == {
        k: first[k] for k in ("reports", "rewritten", "warnings")
    }
    assert second["hits"] + second["refreshes"] > 0 or kind == "attribute"


def test_through_inductor(tmp_path: pathlib.Path) -> None:
    first, second = (process(tmp_path, "item", "inductor", "16") for _ in range(2))
    assert (first["graphs"], second["graphs"]) == (2, 0)


def test_index_tensors_that_come_to_lie_in_one_memory(tmp_path: pathlib.Path) -> None:
    """What is kept for two that are apart is not for a tensor and its view."""
    assert process(tmp_path, "apart", "eager", "16")["graphs"] > 0
    assert process(tmp_path, "apart", "eager", "16")["graphs"] == 0
    assert process(tmp_path, "together", "eager", "16")["graphs"] > 0


def test_what_is_new_is_traced(kept: tuple[pathlib.Path, dict[str, Any]]) -> None:
    """Another capacity, and after it one that was kept: guards hold as ever."""
    path, first = kept
    second = process(path, "item", "eager", "24", "16")
    assert 0 < second["graphs"] <= first["graphs"] + 1
    third = process(path, "item", "eager", "24", "16")
    assert third["graphs"] == 0


def test_another_cache_is_traced(kept: tuple[pathlib.Path, dict[str, Any]]) -> None:
    path, _ = kept
    assert process(path, "attribute", "eager", "16")["graphs"] > 0


def test_what_was_refused_is_said_again(tmp_path: pathlib.Path) -> None:
    first, second = (process(tmp_path, "refused", "eager", "16") for _ in range(2))
    assert (first["graphs"] > 0, second["graphs"]) == (True, 0)
    assert first["warnings"] and second["warnings"] == first["warnings"]


def test_another_version_compiles_again(kept: tuple[pathlib.Path, dict[str, Any]]) -> None:
    path, _ = kept
    code = "from fxpass.torch_internals.precompile import hooks; hooks._own_version = lambda: 'newer'"
    second = process(path, "item", "eager", "16", code=code)
    assert second["graphs"] == 2
    assert [w for w in second["warnings"] if "another version of kvfix" in w]


def test_a_version_is_that_of_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, stock = set(), pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda file: seen.add(file) or stock(file))
    hooks._own_version.__wrapped__()
    assert seen == set(pathlib.Path(fxpass.__file__).parent.rglob("*.py"))


def test_a_file_that_moves_makes_another_version(tmp_path: pathlib.Path) -> None:
    """What is pickled names its module, which is elsewhere then."""
    (tmp_path / "room").mkdir()
    file = tmp_path / "growth.py"
    file.write_text("LEAST = 1")
    before = hooks._version_of(tmp_path)
    file.rename(tmp_path / "room" / "growth.py")
    assert hooks._version_of(tmp_path) != before


def test_guards_that_can_never_hold_are_not_kept(tmp_path: pathlib.Path) -> None:
    """From torch 2.13 on Dynamo traces the constructor of a named tuple, and guards on a scope without a name."""
    first, second = (process(tmp_path, "named", "eager", "16") for _ in range(2))
    traced = torch.__version__ >= "2.13"
    assert second["graphs"] == (first["graphs"] if traced else 0)
    assert bool(first["warnings"]) == bool(second["warnings"]) == traced
    assert all("a function without a module" in w for w in (*first["warnings"], *second["warnings"]))


def test_what_is_loaded_in_part_is_taken_back(tmp_path: pathlib.Path) -> None:
    """Several functions, of which one cannot be loaded: none is."""
    first, second = (process(tmp_path, "breaks", "eager", "16") for _ in range(2))
    assert first["graphs"] > 2
    assert second["graphs"] == (first["graphs"] if torch.__version__ >= "2.13" else 0)


@pytest.mark.parametrize("held, other", [("ONE", "TWO"), ("sin", "cos"), ("twice", "thrice")])
def test_what_a_model_holds_is_guarded_on(tmp_path: pathlib.Path, held: str, other: str) -> None:
    """torch drops guards on identity: without ones of ours, the second process would compute what the first did."""
    assert process(tmp_path, held, "eager", "16")["graphs"] == 2
    assert process(tmp_path, other, "eager", "16")["graphs"] == 2
    assert process(tmp_path, other, "eager", "16")["graphs"] == (2 if other == "thrice" else 0)


def test_other_options_compile_again(kept: tuple[pathlib.Path, dict[str, Any]]) -> None:
    """torch looks for what it kept by the model's function alone."""
    path, _ = kept
    second = process(path, "item", "aot_eager", "16")
    assert second["graphs"] == 2
    assert [w for w in second["warnings"] if "other options" in w]


BETWEEN = """
import fxpass, torch
optimize = torch._dynamo.optimize
def interrupted(*args, **kwargs):
    context = optimize(*args, **kwargs)
    torch._dynamo.optimize = optimize
    torch.compile(lambda x: x, backend="kvfix", options={"compiler": "aot_eager"})
    return context
torch._dynamo.optimize = interrupted
"""
"""Compiles something else, with other options, while a `torch.compile` is on its way."""


def test_each_function_is_loaded_for_its_own_options(kept: tuple[pathlib.Path, dict[str, Any]]) -> None:
    path, _ = kept
    second = process(path, "item", "eager", "16", code=BETWEEN)
    assert second["graphs"] == 0 and not second["warnings"]


class Holding(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.held = lambda x: x * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.held(x)


@torch.no_grad()
def test_a_compilation_that_fails_leaves_nothing_behind() -> None:
    """After a reset Dynamo numbers compilations anew, and this one's number is that of another backend's."""

    def fail(code: object, made: object) -> None:
        raise RuntimeError("before guards are made")

    with torch._dynamo.config.patch(caching_precompile=True):
        hook = torch._dynamo.convert_frame.register_bytecode_hook(fail)
        with pytest.raises(RuntimeError, match="before guards"):
            torch.compile(Holding(), backend="kvfix", options={"compiler": "eager"})(torch.ones(2))
        hook.remove()
        torch.compiler.reset()
        assert torch.compile(Holding(), backend="eager")(torch.ones(2)).sum() == 4
    PrecompileContext.clear()


class Descriptors:
    @staticmethod
    def static() -> int:
        return 1

    @classmethod
    def of_class(cls) -> int:
        return 2

    @property
    def of_object(self) -> int:
        return 3


def pickled(value: Any) -> bytes:
    """What Dynamo keeps of a value that is guarded on."""
    written = io.BytesIO()
    tables = [p for p in inspect.signature(GuardsStatePickler).parameters.values() if p.annotation == "dict[int, Any]"]
    GuardsStatePickler({id(value): value}, *({} for _ in tables[1:]), written).dump(value)
    return written.getvalue()


@pytest.mark.parametrize("name", ["static", "of_class", "of_object"])
def test_descriptors_of_guarded_classes_can_be_pickled(name: str) -> None:
    """einops and others have them in classes whose dicts Dynamo guards on."""
    with compiling(True):
        found = pickle.loads(pickled(vars(Descriptors)[name]))
    assert type(found) is type(vars(Descriptors)[name])
    assert name != "static" or found.__func__ is Descriptors.static


def test_what_other_backends_guard_on_is_pickled_by_torch() -> None:
    index = torch.tensor([3])
    mirror.values(index)
    with compiling(True):
        assert b"fxpass" in pickled(index)
        with compiling(False):
            assert b"fxpass" not in pickled(index)


UNKNOWN = """
import small_models
def extra(): pass
init = small_models.Attention.__init__
def with_extra(self, *args):
    init(self, *args)
    self.extra = extra
small_models.Attention.__init__ = with_extra
"""
"""Gives the model a function that only this process has."""


def test_guards_that_cannot_be_read_compile_again(tmp_path: pathlib.Path) -> None:
    first = process(tmp_path, "item", "eager", "16", code=UNKNOWN)
    assert first["graphs"] == 2 and not first["warnings"]
    second = process(tmp_path, "item", "eager", "16")
    assert second["graphs"] == 2
    assert [w for w in second["warnings"] if "compiled again" in w]
