"""Results that leave a recording in one piece."""

from __future__ import annotations

import torch
from graphs import traced
from torch import Tensor

from fxpass.execute.partition.split import split
from fxpass.execute.recording.packing import pack


def test_results_of_one_dtype_are_one() -> None:
    def step(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = x @ w
        return y + 1, y * 2, (y > 0).to(torch.int64), y.t(), y[:, :3] + 1

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    gm = traced(step, [x, w])
    (part,) = split(gm, set())
    results = list(gm.graph.output_node().args[0])
    groups = [[r] for r in results]
    (packed,) = pack([part], groups)
    assert packed.nodes == [results[0], results[1], results[4]]
    y = x @ w
    given = dict(zip(part.outputs, part.gm(x, w), strict=True))
    assert torch.equal(given[results[2]], (y > 0).long())
    found = packed.copies(given[packed.packed])
    for mine, expected in zip(found, (y + 1, y * 2, y[:, :3] + 1), strict=True):
        torch.testing.assert_close(mine, expected)
        assert mine.stride() == expected.stride()
    assert found[1].data_ptr() % 16 == 0
    before = found[1]._version
    found[0].zero_()
    assert (found[1]._version, given[packed.packed].any().item()) == (before, True)
    torch.testing.assert_close(found[1], y * 2)


def test_what_shares_memory_or_starts_askew_is_left() -> None:
    gm = traced(lambda x: (x @ x, (x @ x)[0], x @ x[:, 0], x @ x[:, 1]), [torch.randn(3, 3)])
    (part,) = split(gm, set())
    a, b, c, d = gm.graph.output_node().args[0]
    assert pack([part], [[a, b], [c], [d]]) == []
