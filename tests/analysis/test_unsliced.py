"""A part of a cache that is taken at a position otherwise than by a slice is left as it is, and nobody is silent about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass

CAPACITY = 16

TAKEN: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "two pieces": lambda k, p: k.split([p, CAPACITY - p], 1)[0],
    "pieces at places": lambda k, p: torch.tensor_split(k, [p], 1)[0],
    "strides": lambda k, p: k.as_strided((2, p, 4), k.stride()),
    "places": lambda k, p: k[:, torch.arange(p)],
    "chosen places": lambda k, p: k.index_select(1, torch.arange(p) // 2),
    "gathered places": lambda k, p: k.gather(1, torch.arange(p)[None, :, None].expand(2, p, 4)),
    "a copy": lambda k, p: k.narrow_copy(1, 0, p),
    "cropped": lambda k, p: torch.nn.functional.pad(k, (0, 0, 0, p - CAPACITY)),
    "where a float says": lambda k, p: k[:, : int(p * 1.0)],
}


@torch.no_grad()
@pytest.mark.parametrize("name", TAKEN)
def test_the_report_the_warning_and_strict_say_so(name: str) -> None:
    def step(k: Tensor, p: Any) -> Tensor:
        return TAKEN[name](k, p).amax(1)

    id = "KV131" if "float" in name else "KV130"
    places = [float(p) if "float" in name else p for p in range(8, 11)]
    k, options = torch.rand(2, CAPACITY, 4), {"compiler": "eager"}
    with pytest.warns(fxpass.KvfixWarning, match=id):
        compiled = torch.compile(step, backend="kvfix", options=options)
        for p in places:
            assert torch.equal(compiled(k, p), step(k, p))
    (left,) = (site for site in fxpass.reports()[-1].sites if site.decision == "refused")
    assert (left.kind, left.buffer, left.id) == ("read", "k", id) and "test_unsliced.py" in left.source
    torch.compiler.reset()
    strict = torch.compile(step, backend="kvfix", options={**options, "strict": True})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=id):
        for p in places:
            strict(k, p)


@torch.no_grad()
def test_what_is_no_part_of_a_buffer_is_none() -> None:
    """A table that is looked up for as many rows as the slice has."""

    def step(k: Tensor, p: int) -> Tensor:
        rows = k[:, :p]
        return (rows * torch.arange(20.0)[torch.arange(rows.shape[1])][:, None]).sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    k = torch.rand(2, CAPACITY, 4)
    for p in range(8, 11):
        torch.testing.assert_close(compiled(k, p), step(k, p))
    assert fxpass.reports()[-1].rewritten and not fxpass.reports()[-1].refused
