"""How tensors lie in memory, as far as it is known, and without a guard."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxpass.graph.layouts import dense_order, is_contiguous

X = torch.zeros(2, 8, 4)


@pytest.mark.parametrize(
    "value, order, contiguous",
    [
        (X, (0, 1, 2), True),
        (X.mT, (0, 2, 1), False),
        (X.permute(2, 0, 1), (1, 2, 0), False),
        (X[:, :4], None, False),
        (X[:1].as_strided((1, 8, 4), (7, 4, 1)), (0, 1, 2), False),  # a dim of size 1 lies anywhere
        (X[:, :1].expand(2, 8, 4), None, False),
        (torch.zeros(()), (), True),
        (3, None, None),
    ],
)
def test_known_layouts(value: Any, order: tuple[int, ...] | None, contiguous: bool | None) -> None:
    assert dense_order(value) == order
    assert contiguous is None or is_contiguous(value) == contiguous
