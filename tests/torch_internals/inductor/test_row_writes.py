"""Inductor generates the writes of rows, within the kernels that compute these."""

from __future__ import annotations

import pytest
import torch

from fxpass.kernels.select import register
from fxpass.torch_internals.inductor import row_writes


@pytest.fixture(autouse=True)
def lowered() -> None:
    register()
    assert row_writes.lower_writes(torch.ops.kvfix.write_rows.default)
    assert row_writes.lower_writes(torch.ops.kvfix.write_rows.default)


def step(parts, caches, shifted, ring, pos):
    """A layer of a stacked cache, both of its views; rows of a cache that is shifted; two rows of a view with gaps."""
    k, v = parts.sum(0).view(2, 3, 2, 4).unbind(2)
    write = torch.ops.kvfix.write_rows
    before = caches[1, 0].sum()
    write(caches[1, 0], 1, pos + torch.arange(1), torch.cat([-k[..., 2:], k[..., :2]], -1)[:, :1] * before)
    write(caches[1].transpose(0, 1)[:, 1], 1, pos + torch.arange(1), v[:, :1] + caches[1, 0].sum())
    write(shifted, 0, torch.arange(3), shifted[1:].clone())
    write(ring[..., ::2], 2, torch.arange(2) + pos, parts[:1, :2, :2] + ring.sum())
    return caches[1].sum(-1) + before, k


@pytest.mark.inductor
@torch.no_grad()
def test_what_is_written() -> None:
    torch.manual_seed(0)
    given = torch.randn(3, 2, 24), torch.randn(2, 2, 2, 5, 4), torch.randn(4, 2), torch.randn(1, 2, 8), torch.tensor(1)
    own = [[g.clone() for g in given] for _ in range(2)]
    compiled = torch.compile(step)
    torch.testing.assert_close(compiled(*own[0]), step(*own[1]))
    torch.testing.assert_close(own[0], own[1])
    with pytest.raises(Exception, match="index out of bounds"):
        compiled(*own[0][:4], torch.tensor(5))
