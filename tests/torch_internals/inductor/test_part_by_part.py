"""Inductor writes what is joined part by part."""

from __future__ import annotations

import pytest
import torch
from torch._inductor.utils import run_and_get_code

from fxpass.kernels.writes.join_parts import join_parts
from fxpass.torch_internals.inductor.part_by_part import lower_joins


def results(x: torch.Tensor, y: torch.Tensor, cat) -> tuple[torch.Tensor, torch.Tensor]:
    """Views, an expanded element, a constant, one tensor twice, one that is given as well."""
    shares = x.softmax(-1)
    flat = [shares.reshape(-1), y.exp() + 1, shares.t().reshape(-1), y[:1].expand(3), torch.full((2,), 0.5), x.view(-1), y, y]
    return cat(flat), shares


@pytest.mark.inductor
@torch.no_grad()
@pytest.mark.parametrize("combined", [False, True])
def test_what_is_joined(combined: bool) -> None:
    assert lower_joins(torch.ops.kvfix.join.default) and lower_joins(torch.ops.kvfix.join.default)
    torch.manual_seed(0)
    x, y = torch.randn(3, 4), torch.randn(5)
    compiled = torch.compile(results, options={"combo_kernels": combined, "combo_kernels_pointwise_only": True})
    got, (code,) = run_and_get_code(compiled, x, y, join_parts)
    torch.testing.assert_close(got, results(x, y, torch.cat))
    assert "torch.ops.kvfix.join" not in code.split("def call(")[1]
