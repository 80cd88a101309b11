"""Index tensors over one memory: what is written through one is read through the other."""

from __future__ import annotations

import pytest
import torch
from small_models import breaks, graphs, kvfix
from torch import Tensor

from fxpass.index_tensors.address_ranges import disjoint, overlaps_itself


def step(keys: Tensor, written: Tensor, read: Tensor) -> tuple[Tensor, int]:
    start = written[0].item()
    keys[:, start : start + 1] = 1
    written.add_(1)
    end = read[0].item()
    return keys[:, :end].sum(1), end


def write_back(keys: Tensor, written: Tensor, read: Tensor) -> tuple[Tensor, int]:
    end = written[0].item()
    read.bitwise_xor_(3)
    return keys[:, :end].sum(1), written[0].item()


def separate() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)


def a_view() -> tuple[Tensor, Tensor]:
    index = torch.zeros(2, dtype=torch.long)
    return index, index[:1]


def an_array() -> tuple[Tensor, Tensor]:
    """Two storages."""
    held = torch.zeros(1, dtype=torch.long)
    return held, torch.from_numpy(held.numpy())


def a_large_tensor() -> tuple[Tensor, Tensor]:
    held = torch.zeros(4000, dtype=torch.long)
    return held[:1], held


@pytest.mark.parametrize("function", [step, write_back], ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", [a_view, an_array, a_large_tensor], ids=lambda f: f.__name__)
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("later", [False, True])
@torch.no_grad()
def test_one_memory(function, make, swapped: bool, later: bool) -> None:
    """From the first call on, and from a later one on."""
    compiled = kvfix(function)
    for kind in (separate, make) if later else (make, separate):
        pairs = [kind(), kind()]
        ours, theirs = (pair[::-1] if swapped else pair for pair in pairs)
        mine, eager = torch.zeros(2, 16), torch.zeros(2, 16)
        for i in range(5):
            torch.testing.assert_close(compiled(mine, *ours), function(eager, *theirs), msg=f"step {i}")
            assert torch.equal(mine, eager) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
            if kind is separate:
                ours[1].add_(1), theirs[1].add_(1)


@torch.no_grad()
def test_elements_of_one_tensor() -> None:
    """Each layer holds its own: they do not meet, and two graphs do."""

    def layers(keys: Tensor, indices: list[Tensor]) -> Tensor:
        out = []
        for index in indices:
            start = index.item()
            keys[:, start : start + 1] += 1
            index.add_(1)
            out.append(keys[:, : index.item()].sum())
        return torch.stack(out)

    compiled, ours, theirs = kvfix(layers), torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    mine, eager = torch.zeros(2, 16), torch.zeros(2, 16)
    for _ in range(5):
        torch.testing.assert_close(compiled(mine, [*ours.unbind()]), layers(eager, [*theirs.unbind()]))
    assert (graphs(), breaks()) == (2, 0)


def test_disjoint() -> None:
    held = torch.zeros(4, dtype=torch.long)
    assert disjoint([(held[:2], True, True), (held[2:], True, True), (torch.zeros(2), False, True)])
    assert not disjoint([(held, True, True), (held[1:2], False, True)])
    assert not disjoint([(held, False, True), (held[1:2], True, False)])
    assert disjoint([(held, False, True), (held[1:2], False, True), (held.clone(), True, True)])
    assert disjoint([(held, True, False), (held[1:2], True, False)])
    assert disjoint([(held, True, True), (held[1:1], False, True), (held[::2][:0], True, True)])
    assert not disjoint([(held[::2], False, True), (held[2:3], True, False)])
    assert not disjoint([(held, True, True), (held[1:1], False, True), (held[3:], False, True)])


OVERLAPPING = {
    "one number": lambda rows: torch.tensor(1).expand(rows),
    "one row": lambda rows: torch.tensor([1, 2]).expand(rows, 2),
    "windows": lambda rows: torch.arange(1, rows + 2).unfold(0, 2, 1),
    "strided": lambda rows: torch.arange(1, 9).as_strided((rows, 2), (1, 1)),
    "apart": lambda rows: torch.arange(1, 13)[::2].view(2, 3).t()[:rows],
}


@pytest.mark.parametrize("moving", [False, True], ids=["one size", "any size"])
@pytest.mark.parametrize("name", OVERLAPPING)
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@torch.no_grad()
def test_elements_at_one_address(name: str, moving: bool) -> None:
    """What is written to one element is read in another, also of a tensor that comes in any length."""

    def step(k: Tensor, idx: Tensor) -> Tensor:
        idx[0, ..., -1].add_(1) if idx.dim() > 1 else idx[0].add_(1)
        return k[:, : int(idx[-1].max()) + int(idx.sum())].sum(1)

    compiled, k = kvfix(step), torch.rand(2, 80)
    for rows in (2, 3, 2, 3) if moving else (3, 3, 3):
        mine, eager = OVERLAPPING[name](rows), OVERLAPPING[name](rows)
        torch.testing.assert_close(compiled(k, mine), step(k, eager))
        assert torch.equal(mine, eager)


def test_overlaps_itself() -> None:
    found = {name: overlaps_itself(make(3)) for name, make in OVERLAPPING.items()}
    assert found == {name: name != "apart" for name in OVERLAPPING}
    assert not overlaps_itself(torch.zeros(1).expand(1, 1)) and not overlaps_itself(torch.zeros(3, 0, 2))
