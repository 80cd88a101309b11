"""Each function that is put in the place of one of torch's may raise: torch's own is taken then, and called once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass
from fxpass import backend
from fxpass.report import store
from fxpass.torch_internals import install, patches
from fxpass.torch_internals.contracts import TABLE, Feature
from fxpass.torch_internals.dynamo import hooks
from fxpass.torch_internals.lookup import resolve

LATE = {"torch._dynamo.optimize", "torch._dynamo.package.CompilePackage.install", "torch.backends.opt_einsum.get_opt_einsum",
        "torch.utils.swap_tensors"}  # fmt: skip
"""Hooks that a first call does not come by, or whose errors are the user's."""


def replaced() -> list[str]:
    """The names of the table that a hook stands before, once the backend is there. What `replace` has put there is no hook."""
    return [n for n, row in TABLE.items() if "." in n and row.feature is not Feature.ASKED and patches.is_patched(n)]


class Model(torch.nn.Module):
    """Comes by all hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.scale = 0, 0.5

    def forward(self, x: Tensor, idx: Tensor, cache: Tensor, p: int, f: float) -> Tensor:
        start = int(idx[0].item())
        cache[:, start : start + 1] = x
        idx += 1
        self.seen += 1
        cached = {f"{p} rows": cache}
        twice = 2 if idx[0] > 3 else 1
        more = size(3) if 7 in idx.tolist() or torch.equal(idx, idx + 1) else size(4)
        filled = torch.full((2,), idx[0])
        more += p.bit_length() + self.seen + sorted([p, 9, 3])[1]
        return cached[f"{p} rows"][:, : idx[0]].sum(1) * twice * f + sum(idx.tolist()) + more + filled


@functools.lru_cache
def size(n: int) -> int:
    return n + 1


@pytest.fixture
def met(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Grows with each call of the hook that the test names, which raises, in turn before and after it has done its work."""
    name, called = request.param, []

    def fails(hook: Callable[..., Any], stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called.append(name)
        if len(called) % 2 == 0:
            hook(stock, *args, **kwargs)
        raise KeyError("of ours")

    def patched(owner: Any, attribute: Any, hook: Callable[..., Any], contain: bool = True) -> None:
        wanted = attribute if isinstance(attribute, int) else name.rpartition(".")[2]
        ours = name == "jumps" if isinstance(attribute, int) else name != "jumps" and owner is resolve(name.rpartition(".")[0])
        put(owner, attribute, functools.partial(fails, hook) if ours and attribute == wanted else hook, contain)

    put = patches.patch_attribute
    fxpass.uninstall()
    with monkeypatch.context() as broken:
        broken.setattr(patches, "patch_attribute", patched)
        broken.setattr(hooks, "patch_attribute", patched)
        install.install(backend.kvfix, backend.get_ready, store.reset, store.left_to_eager)
    yield called
    fxpass.uninstall()
    install.install(backend.kvfix, backend.get_ready, store.reset, store.left_to_eager)


NAMES = ["jumps", *(name for name in replaced() if name not in LATE)]


@pytest.mark.parametrize("met", NAMES, indirect=True, ids=lambda name: ".".join(name.split(".")[-2:]))
@torch.no_grad()
def test_a_hook_that_raises_costs_no_number(met: list[str], request: pytest.FixtureRequest) -> None:
    kept = "pickle" in request.node.name.lower()
    with warnings.catch_warnings(record=True) as caught, torch._dynamo.config.patch(caching_precompile=kept):
        warnings.simplefilter("always")
        eager, ours = Model(), torch.compile(Model(), backend="kvfix", options={"compiler": "eager"})
        states = [(torch.zeros(2, dtype=torch.int64), torch.zeros(2, 8)) for _ in range(2)]
        for p in range(3):
            x = torch.full((2, 1), 1.0 + p)
            results = [model(x, *state, p, 0.5 + p) for model, state in zip((eager, ours), states, strict=True)]
            assert torch.equal(*results), p
            assert all(torch.equal(a, b) for a, b in zip(*states, strict=True)), p
        torch.compiler.reset()
    told = {str(w.message) for w in caught if issubclass(w.category, fxpass.KvfixWarning)}
    assert met
    assert sum("KeyError: 'of ours'" in text and "Traceback" in text for text in told) == 1
