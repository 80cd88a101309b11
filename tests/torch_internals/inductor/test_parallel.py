"""The configurations of a kernel go to several processes; its own job is as without."""

from __future__ import annotations

import inspect
import pickle

import pytest
from torch._inductor.runtime.compile_tasks import _worker_compile_triton
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

from fxpass.torch_internals import patches
from fxpass.torch_internals.inductor import parallel as shares

compiled: list[int] = []
pickled: list[list[int] | None] = []


class Kernel:
    """An autotuned kernel: as Inductor's, it has no configurations left once it is compiled."""

    def __init__(self, *configs: int) -> None:
        self.configs: list[int] | None = list(configs)

    def _precompile_config(self, config):
        compiled.append(config)
        if config == 5:
            raise RuntimeError("no such instruction")

    def precompile(self, warm_cache_only):
        for config in self.configs or []:
            self._precompile_config(config)
        self.configs = None

    def prepare_for_pickle(self):
        pickled.append(self.configs)


KERNEL = Kernel()


def load():
    return KERNEL


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """One process: a kernel's module is loaded once."""
    compiled.clear()
    pickled.clear()
    monkeypatch.setitem(globals(), "KERNEL", Kernel(0, 1, 2, 3, 4, 5, 6))


def sent(job, *args):
    """What goes to the pool for ``job``, on the other side of the pipe."""
    jobs: list[bytes] = []
    shares._submit(lambda pool, *job: jobs.append(pickle.dumps(job)), None, job, *args)
    return [pickle.loads(job) for job in jobs]


def run(job):
    function, *args = job
    return function(*args)


def test_each_process_compiles_its_share_and_returns_nothing() -> None:
    with shares.side_by_side():
        own, *others = sent(_worker_compile_triton, load, {}, {})
    assert own == (_worker_compile_triton, load, {}, {})
    for share in ([1, 5], [2, 6], [3]):
        compiled.clear()
        assert run(others.pop(0)) is None
        assert compiled == share
    assert others == [] and pickled == []


def test_the_kernels_own_job_is_as_without_in_the_same_process() -> None:
    with shares.side_by_side():
        (_, *args), *others = sent(_worker_compile_triton, load, {}, {})
    run(others[0])
    KERNEL.configs.remove(5)  # would fail
    compiled.clear()
    assert run((_worker_compile_triton, *args))[0] is KERNEL
    assert (compiled, pickled) == ([0, 1, 2, 3, 4, 6], [None])
    run(others[1])
    assert compiled[6:] == []


def test_other_jobs_and_other_threads_work_are_left_alone() -> None:
    assert len(sent(_worker_compile_triton, load, {}, {})) == 1
    with shares.side_by_side():
        assert sent(print, "ready") == [(print, "ready")]
        with shares.side_by_side():
            pass
        assert len(sent(_worker_compile_triton, load, {}, {})) == shares.PROCESSES
    assert len(sent(_worker_compile_triton, load, {}, {})) == 1


def test_inductor_compiles_a_kernel_as_we_assume() -> None:
    """Else the shares would be compiled for nobody."""
    source = inspect.getsource(CachingAutotuner._precompile_worker)
    assert "for c in self.configs" in source and "self._precompile_config(c" in source


def test_the_patch_is_put_back_in_after_it_was_taken_out() -> None:
    with shares.side_by_side():
        assert patches.is_patched(shares._SUBMIT)
    undo = next(undo for undo in patches._undo if undo.args[1:2] == ("submit",))
    patches._undo.remove(undo)
    undo()
    assert not patches.is_patched(shares._SUBMIT)
    with shares.side_by_side():
        assert patches.is_patched(shares._SUBMIT)
