"""Options are checked by `torch.compile` itself, before anything runs."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from small_models import Attention, ItemCache, graphs, same_step, steps
from torch._subclasses.fake_tensor import FakeTensorMode

import fxpass
from fxpass import backend
from fxpass.options import Options, parse


@pytest.mark.parametrize(
    "options, said",
    [
        ({"compilr": "eager"}, "unknown option 'compilr'"),
        ({"compiler": 3}, "option 'compiler' takes str, not 3"),
        ({"strict": "yes"}, "option 'strict' takes bool, not 'yes'"),
        ({"inductor": ["triton.cudagraphs"]}, "option 'inductor' takes mapping"),
        ({"verify": "2"}, "option 'verify' takes int, not '2'"),
        ({"recordin": False}, r"unknown option 'recordin' \(did you mean 'recording'\?\); valid options are"),
        ({"capacity": 1.5}, "option 'capacity' takes int, not 1.5"),
        ({"kernels": 0}, "option 'kernels' takes bool, not 0"),
        ({"capacity": True}, "option 'capacity' takes int, not True"),
    ],
)
def test_wrong_options_raise_at_compile(options: dict[str, Any], said: str):
    with pytest.raises(RuntimeError, match=said) as raised:
        torch.compile(Attention(), backend="kvfix", options=options)
    for valid in ("compiler: str", "strict: bool", "inductor: mapping", "verify: int"):
        assert valid in str(raised.value)


@pytest.mark.parametrize("name, said", [("verify", "a number of calls, not -1"), ("capacity", "a number of rows, not -1")])
def test_a_negative_number_raises_at_compile(name: str, said: str):
    with pytest.raises(RuntimeError, match=f"'{name}' takes {said}"):
        torch.compile(Attention(), backend="kvfix", options={name: -1})


@pytest.mark.parametrize("given, wanted", [("", 0), ("0", 0), ("3", 3)])
def test_the_environment_says_how_many_calls_are_verified(given: str, wanted: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVFIX_VERIFY", given)
    assert parse().verify == wanted and parse({"verify": 1}).verify == 1
    assert bool(parse().inductor.get("fallback_random")) == bool(wanted)


def test_a_wrong_environment_raises_at_compile(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVFIX_VERIFY", "always")
    with pytest.raises(RuntimeError, match="KVFIX_VERIFY takes a number of calls, not 'always'"):
        torch.compile(Attention(), backend="kvfix")


@pytest.mark.parametrize(
    "name, near",
    [("max_autotun", "max_autotune"), ("triton.cudagraph", "triton.cudagraphs"), ("no_such_setting_at_all", None)],
)
@pytest.mark.parametrize("compiler", ["inductor", "eager"])
def test_settings_that_inductor_does_not_have_raise_at_compile(name: str, near: str | None, compiler: str):
    with pytest.raises(RuntimeError, match=f"Inductor has no setting '{name}'") as raised:
        torch.compile(Attention(), backend="kvfix", options={"compiler": compiler, "inductor": {name: True}})
    assert (f"did you mean '{near}'?" in str(raised.value)) == (near is not None)


def test_settings_that_are_several_are_given_one_by_one():
    with pytest.raises(RuntimeError, match="no setting 'triton', but several, such as 'triton.NAME'"):
        torch.compile(Attention(), backend="kvfix", options={"inductor": {"triton": {"cudagraphs": False}}})


@pytest.mark.parametrize("how", ["option", "environment"])
@torch.no_grad()
def test_the_rewrite_can_be_switched_off(how: str, monkeypatch: pytest.MonkeyPatch):
    if how == "environment":
        monkeypatch.setenv("KVFIX_REWRITE", "0")
    model, cache = Attention(), ItemCache()
    options = {"compiler": "aot_eager", **({"rewrite": False} if how == "option" else {})}
    compiled, eager_cache = torch.compile(model, backend="kvfix", options=options), copy.deepcopy(cache)
    for x in steps(decoded=3):
        same_step(how, model, compiled, x, eager_cache, cache)
    last = fxpass.reports()[-1]
    assert (last.sites, last.parts, last.unfit) == ([], [], "") and last.notes[0].startswith("KV010")


def test_recordings_and_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    assert on_gpu(options={"recording": False}) is False
    assert on_gpu(options={"recording": False}, mode="reduce-overhead") is False
    assert on_gpu(options={"recording": False, "inductor": {"triton.cudagraphs": True}}) is True
    assert parse().kernels and not parse({"kernels": False}).kernels
    monkeypatch.setenv("KVFIX_RECORDING", "0")
    monkeypatch.setenv("KVFIX_KERNELS", "0")
    assert on_gpu() is False and not parse().kernels and parse({"kernels": True}).kernels
    monkeypatch.setenv("KVFIX_STRICT", "1")
    assert parse().strict and not parse({"strict": False}).strict
    monkeypatch.setenv("KVFIX_KERNELS", "off")
    with pytest.raises(RuntimeError, match="KVFIX_KERNELS takes 0 or 1, not 'off'"):
        parse()


def test_kernels_that_are_switched_off_are_not_put_in(monkeypatch: pytest.MonkeyPatch):
    used: list[bool] = []
    monkeypatch.setattr(backend, "is_recorded", lambda *given: True)
    monkeypatch.setattr(backend, "use_kernels", lambda *given: used.append(True))
    for kernels in (False, True):
        torch._dynamo.reset()
        step = torch.compile(lambda k, p: k[:, :p].sum(1), backend="kvfix", options={"compiler": "eager", "kernels": kernels})
        for p in (3, 4):
            step(torch.rand(2, 8), p)
        assert bool(used) == kernels


def test_unknown_compiler_raises_at_compile():
    with pytest.raises(RuntimeError, match="'tvm' is none of inductor, aot_eager, eager"):
        torch.compile(Attention(), backend="kvfix", options={"compiler": "tvm"})


def test_unknown_mode_raises_at_compile():
    with pytest.raises(RuntimeError, match="'fast' is none of default, reduce-overhead, max-autotune"):
        torch.compile(Attention(), backend="kvfix", mode="fast")


def on_gpu(**given: Any) -> Any:
    """What Inductor is told of CUDA graphs for a graph that takes a tensor on a GPU and one on the CPU."""
    with FakeTensorMode():
        inputs = [torch.empty(2), 1, torch.empty(2, device="cuda")]
    return parse(**given).on(inputs).inductor.get("triton.cudagraphs")


def test_modes(monkeypatch: pytest.MonkeyPatch):
    """CUDA graphs are the default; a mode's patches go to Inductor, and the user's own have the last word."""
    monkeypatch.setenv("KVFIX_VERIFY", "0")
    assert parse() == Options("inductor", False, {}, 0, 0, True)
    assert parse(mode="max-autotune").inductor["max_autotune"]
    assert on_gpu() is True and on_gpu(mode="reduce-overhead") is True
    assert on_gpu(mode="max-autotune-no-cudagraphs") is False
    assert on_gpu(options={"inductor": {"triton.cudagraphs": False}}, mode="reduce-overhead") is False
    assert on_gpu(options={"inductor": {"triton.cudagraphs": True}}, mode="max-autotune-no-cudagraphs") is True


@pytest.mark.parametrize("mode", [None, "reduce-overhead", "max-autotune-no-cudagraphs"])
def test_nothing_is_said_of_cuda_graphs_on_a_cpu(mode: str | None):
    """What the user says is handed on all the same."""
    inputs = [torch.zeros(2), 3]
    assert "triton.cudagraphs" not in parse(mode=mode).on(inputs).inductor
    said = parse({"inductor": {"triton.cudagraphs": True}}, mode).on(inputs)
    assert said.inductor["triton.cudagraphs"] is True


class Complex(torch.nn.Module):
    """A buffer that the prefill fills and each step writes one row of."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(2, 2, 8, 4, dtype=dtype))

    def forward(self, x: torch.Tensor, c: torch.Tensor, start: int) -> torch.Tensor:
        end = start + c.shape[2]
        self.k[:, :, start:end] = c
        return (x @ self.k[:, :, :end].abs().mT.to(x.dtype)).sum(-1)


@pytest.mark.inductor
@pytest.mark.parametrize(
    "dtype, mode",
    [
        (torch.complex64, None),
        (torch.complex128, "reduce-overhead"),
        (torch.float16, "reduce-overhead"),
        (torch.bfloat16, None),
    ],
)
@torch.no_grad()
def test_complex_buffers_on_a_cpu(dtype: torch.dtype, mode: str | None):
    model = Complex(dtype)
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="kvfix", mode=mode)
    for start, rows in ((0, 5), (5, 1), (6, 1), (7, 1)):
        x, c = torch.randn(2, 2, 5, 4), torch.randn(2, 2, rows, 4, dtype=torch.complex128)
        c = c if dtype.is_complex else c.real.to(dtype)
        torch.testing.assert_close(compiled(x, c, start), eager(x, c, start))
        assert torch.equal(model.k, eager.k)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
def test_modes_are_accepted_by_compile(mode: str):
    torch.compile(Attention(), backend="kvfix", mode=mode)


@torch.no_grad()
def test_what_is_compiled_has_a_name():
    """`torch.compile` takes one in later releases, and from torch 2.15 on it hands it to the backend."""
    given = {"name": "decode"} if "name" in inspect.signature(torch.compile).parameters else {}
    handed_on = torch.__version__ >= (2, 15)  # type: ignore[operator]
    compiled = torch.compile(lambda x: x + 1, backend="kvfix", options={"compiler": "eager"}, **given)
    assert torch.equal(compiled(torch.zeros(2)), torch.ones(2))
    assert fxpass.reports()[-1].name == ("decode, graph 0" if handed_on else "graph 0")


@pytest.mark.inductor
@torch.no_grad()
def test_reduce_overhead_runs():
    """The default compiler, with a mode: two steps of a real decode."""
    model, cache = Attention(), ItemCache()
    compiled, eager_cache = torch.compile(model, backend="kvfix", mode="reduce-overhead"), copy.deepcopy(cache)
    for x in steps(decoded=2):
        same_step("reduce-overhead", model, compiled, x, eager_cache, cache, exact=False)
    assert graphs() == 2


_NO_IMPORT = """
import torch

class Cache:
    def __init__(self):
        self.buffer, self.index = torch.zeros(8, 4), torch.zeros(1, dtype=torch.int64)

def step(x, cache):
    start = int(cache.index[0].item())
    cache.buffer[start : start + 1] = x
    cache.index[0] = start + 1
    return cache.buffer[: start + 1].sum(0)

compiled, cache, eager_cache = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), Cache(), Cache()
with torch.no_grad():
    for _ in range(5):
        x = torch.randn(1, 4)
        assert torch.allclose(compiled(x, cache), step(x, eager_cache), atol=1e-6)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, torch._dynamo.utils.counters
assert not torch._dynamo.utils.counters["graph_break"]
import fxpass
print(fxpass.reports()[-1].rewritten)
"""


def test_the_name_alone_is_enough(tmp_path: Any):
    """The entry point finds the backend: no ``import fxpass``."""
    script = tmp_path / "user.py"
    script.write_text(_NO_IMPORT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3"  # write, read, and the index that is set to start + 1


@pytest.mark.parametrize(
    "name, said", [("KVFIX_REWRIT", "did you mean 'KVFIX_REWRITE'"), ("KVFIX_CAPACITY", "there is KVFIX_")]
)
def test_a_variable_that_is_none_is_told(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(RuntimeError, match=f"no variable {name}.*{said}"):
        torch.compile(lambda x: x, backend="kvfix")
