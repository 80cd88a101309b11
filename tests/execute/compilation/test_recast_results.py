"""A result that is a row of a cache, seen as another dtype, is eager's: a view of the cache, of its shape and numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass
from fxpass import KvfixWarning

RECAST: dict[str, tuple[torch.dtype, Callable[[Tensor, int], Any]]] = {
    "wider": (torch.uint8, lambda k, p: k[:, p].view(torch.int16)),
    "narrower": (torch.float32, lambda k, p: k[:, p : p + 1].view(torch.int16)),
    "as_wide": (torch.float32, lambda k, p: k.select(1, p).view(torch.int32)[:, 1:]),
    "complex": (torch.float32, lambda k, p: torch.view_as_complex(k[:, p].unflatten(-1, (2, 2)))),
    "real": (torch.complex64, lambda k, p: torch.view_as_real(k[:, p])),
    "two": (torch.float16, lambda k, p: (k[:, p].view(torch.int16), k[:, p].view(torch.bfloat16), k.narrow(1, p, 1))),
}


@torch.no_grad()
@pytest.mark.parametrize("recast", RECAST)
def test_a_row_as_another_dtype_is_eagers(recast: str) -> None:
    dtype, view = RECAST[recast]

    def step(k: Tensor, x: Tensor, p: int) -> Any:
        k[:, p : p + 1] = x
        return view(k, p), k[:, : p + 1].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "aot_eager"})
    ours = torch.zeros(2, 16, 4).to(dtype)
    theirs = ours.clone()
    for p in range(3, 8):
        x = (torch.rand(2, 1, 4) * 100).to(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", KvfixWarning)  # KV108: the read is refused
            got = compiled(ours, x, p)
        torch.testing.assert_close(got, step(theirs, x, p), rtol=1e-6, atol=0)
        first = got[0][0] if isinstance(got[0], tuple) else got[0]
        assert first.untyped_storage().data_ptr() == ours.untyped_storage().data_ptr()
    assert counters["stats"]["unique_graphs"] == 2
    assert not any(report.faults or report.unfit for report in fxpass.reports())
