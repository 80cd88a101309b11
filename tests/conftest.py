"""Every test starts with nothing compiled and nothing remembered; a `KvfixWarning` that it does not expect fails it."""

from __future__ import annotations

import gc
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

import pytest

# Precompiled headers in Inductor's cache are those of one torch: let several on one machine not meet there.
_CACHE = os.path.join(tempfile.gettempdir(), f"kvfix_inductor_torch_{version('torch')}")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", _CACHE)
# The first calls of each graph, in all tests and in the processes that they start, are compared with the graph as it came.
os.environ.setdefault("KVFIX_VERIFY", "2")

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # our own kernels run in Triton's interpreter, from its first import on

from torch._dynamo import guards  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

_TESTS = pytest.StashKey[int]()
note_coverage = None
if folder := os.environ.get("KVFIX_COVERAGE"):
    from measured import measure

    note_coverage = measure(folder)

import fxpass  # noqa: E402

# After each compilation torch flushes the processor's caches to time the new guards for its log,
# which is a sixth of what a small one takes.
guards.profile_guard_manager = lambda *_: 0.0
# pytest listens to loggers that do not propagate; torch writes its trace, every graph in full, as soon as anyone listens.
logging.getLogger("torch.__trace").propagate = True


gc.freeze()  # what is imported stays
gc.set_threshold(20_000)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error::fxpass.KvfixWarning")


def pytest_unconfigure() -> None:
    """Not when the process ends: pytest-xdist may not wait for that."""
    if note_coverage is not None:
        note_coverage()


@pytest.fixture(autouse=True, scope="session")
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is left in the folder for temporary files, here and by the processes that tests start, goes with pytest's own."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    tempfile.tempdir = os.environ["TMPDIR"] = folder


@pytest.fixture(autouse=True)
def small_heap(request: pytest.FixtureRequest) -> None:
    """What torch remembers of each test, some thousand objects, is not looked through again at every full collection: that
    takes a quarter of the suite."""
    request.session.stash[_TESTS] = tests = request.session.stash.get(_TESTS, 0) + 1
    if tests % 50 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def compiled_parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parts that are compiled in the test, in order."""
    from fxpass.execute.compilation.regions import Region

    made: list[str] = []
    first_call = Region._first_call

    def noted(self: Region, args: list) -> object:
        made.append(self.part.name)
        return first_call(self, args)

    monkeypatch.setattr(Region, "_first_call", noted)
    return made


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often Dynamo has traced each function in the test; "frame" counts the frames, each anew where Dynamo starts again."""
    from torch._dynamo.symbolic_convert import InstructionTranslator, InstructionTranslatorBase

    seen, run = Counter[str](), InstructionTranslatorBase.run

    def noted(self: InstructionTranslatorBase) -> object:
        seen[self.f_code.co_name] += 1
        seen["frame"] += isinstance(self, InstructionTranslator)
        return run(self)

    monkeypatch.setattr(InstructionTranslatorBase, "run", noted)
    return seen
