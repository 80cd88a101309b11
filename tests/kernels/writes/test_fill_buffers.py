"""The kernel that fills buffers, in Triton's interpreter: as copies one by one do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from fxpass.kernels.launches import limits
from fxpass.kernels.writes import fill_buffers, fill_kernel
from fxpass.kernels.writes.fill_buffers import FillAtOnce


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES", {"cpu"})


LIKE: dict[str, list[tuple[list[int], int, torch.dtype]]] = {
    "series": [([2, 3, 40], 2, torch.float32), ([2, 3, 40], 2, torch.bool), ([2, 3, 40], 2, torch.int32)],
    "keys": [([2, 4, 17, 8], 2, torch.bfloat16), ([17, 3], 0, torch.float64), ([5, 17], 1, torch.int64)],
    "many blocks": [([3, 2000], 1, torch.float32), ([1, 1], 1, torch.float16)],
    "nothing yet": [([2, 0, 4], 1, torch.float32)],
    "an index tensor": [([2, 6], 1, torch.float32), ([], 0, torch.int32)],
}


@pytest.mark.parametrize("like", LIKE.values(), ids=LIKE)
@pytest.mark.parametrize("values", [[], [7], [1, -2, 2**40, 0, 5, 6, 7, 8]], ids=len)
def test_the_kernel_fills_as_copies_do(like: list[tuple[list[int], int, torch.dtype]], values: list[int]) -> None:
    given = [(torch.randn(shape) * 9).to(dtype) for shape, _, dtype in like]
    dims = [dim for _, dim, _ in like]
    shapes = [[s + 5 * (d == dim) for d, s in enumerate(shape)] for shape, dim, _ in like]
    buffers = [torch.ones(shape, dtype=t.dtype) for shape, t in zip(shapes, given, strict=True)]
    wanted = [buffer.clone() for buffer in buffers]
    numbers = torch.zeros(len(values), dtype=torch.int64)
    assert FillAtOnce(buffers, dims, numbers)(buffers, given, values)
    for buffer, tensor, dim, want in zip(buffers, given, dims, wanted, strict=True):
        (want.narrow(dim, 0, tensor.shape[dim]) if tensor.dim() else want).copy_(tensor)
        assert torch.equal(buffer, want)
    assert numbers.tolist() == values


def test_what_it_is_not_written_for_is_left() -> None:
    x, numbers = torch.randn(4, 6), torch.zeros(1, dtype=torch.int64)
    for given in ([x.mT], [x] * 5, [x.double()], []):
        buffers = [torch.zeros(6, 6) if g.dtype is torch.float64 else torch.zeros(8, 6, dtype=g.dtype) for g in given]
        assert not FillAtOnce(buffers, [0] * len(given), numbers)(buffers, given, [3])
        assert not any(b.any() for b in buffers) and not numbers.any()
    assert not fill_buffers._failed


@pytest.mark.parametrize("current, entered", [(0, [torch.device("cuda", 1)]), (1, [])])
def test_where_it_is_launched(monkeypatch: pytest.MonkeyPatch, current: int, entered: list[torch.device]) -> None:
    """Triton launches on the current device, whatever the tensors' is."""
    seen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "device", lambda device: seen.append(device) or contextlib.nullcontext())
    with fill_kernel.on(torch.device("cuda", 1)):
        pass
    assert seen == entered


def test_the_device_is_asked_around_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []

    @contextlib.contextmanager
    def on(device: torch.device) -> Iterator[None]:
        inside.append(True)
        yield
        inside.append(buffer.any().item())

    buffer = torch.zeros(6)
    monkeypatch.setattr(fill_kernel, "on", on)
    fill = FillAtOnce([buffer], [0], torch.zeros(1, dtype=torch.int64))
    assert fill([buffer], [torch.ones(4)], [3]) and inside == [True, True]
