"""An index tensor that is changed behind the back of what is compiled: what it holds now counts, on the host and elsewhere."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import skip_code

from fxpass.index_tensors import mirror


class Cache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(2, 16))
        self.register_buffer("index", torch.tensor([2, 2]))

    def forward(self, x: Tensor) -> Tensor:
        start = int(self.index[0].item())
        self.rows[:, start : start + 1] = x
        self.index += 1
        assert start < 12
        return self.rows[:, : int(self.index[1].item())].sum(1)


def in_place(m: Cache) -> None:
    m.index.sub_(2)


def one_element(m: Cache) -> None:
    m.index[0] = 1


def copied_into(m: Cache) -> None:
    m.index.copy_(m.index.new_tensor([1, 4]))


def filled(m: Cache) -> None:
    m.index.zero_()


def through_a_view(m: Cache) -> None:
    m.index[1:].add_(2)


def through_detach(m: Cache) -> None:
    m.index.detach().sub_(1)


def set_to_another(m: Cache) -> None:
    m.index.set_(m.index.new_tensor([1, 6]))


def data_assigned(m: Cache) -> None:
    m.index.data = m.index.new_tensor([1, 6])


def data_assigned_twice(m: Cache) -> None:
    m.index.data = m.index.new_tensor([9, 9])
    m.index.data = m.index.new_tensor([1, 6])


def data_assigned_from_the_same_memory(m: Cache) -> None:
    m.index.data = m.index.new_tensor([7, 1, 6]).data
    mirror.values(m.index)
    m.index.data = m.index.data[1:]


def resized(m: Cache) -> None:
    m.index.resize_(0)
    m.index.resize_(2)
    m.index.copy_(m.index.new_tensor([3, 3]))


def swapped(m: Cache) -> None:
    torch.utils.swap_tensors(m.index, torch.tensor([1, 6], device=m.index.device))


def swapped_with_one_that_is_known(m: Cache) -> None:
    other = torch.tensor([1, 6], device=m.index.device)
    mirror.values(other)
    torch.utils.swap_tensors(other, m.index)


def a_new_tensor(m: Cache) -> None:
    m.index = m.index.new_tensor([1, 6])


def many_new_tensors(m: Cache) -> None:
    for i in range(20):
        m.index = m.index.new_tensor([1, i % 7 + 1])


def on_another_thread(m: Cache) -> None:
    thread = threading.Thread(target=lambda: m.index.sub_(1))
    thread.start()
    thread.join()


def under_inference_mode(m: Cache) -> None:
    with torch.inference_mode():
        m.index.sub_(1)


def state_loaded(m: Cache) -> None:
    m.load_state_dict({"rows": torch.ones_like(m.rows), "index": m.index.new_tensor([1, 6])})


def state_assigned(m: Cache) -> None:
    m.load_state_dict({"rows": torch.ones_like(m.rows), "index": m.index.new_tensor([1, 6])}, assign=True)


def cast(m: Cache) -> None:
    m.index = m.index.to(torch.int32) - 1


def moved(m: Cache) -> None:
    m.to(torch.float32)
    m.index.sub_(1)


def copied_and_back(m: Cache) -> None:
    other = copy.deepcopy(m.index)
    other -= 1
    m.index = other


def pickled(m: Cache) -> None:
    m.index = pickle.loads(pickle.dumps(m.index - 1))


def saved(m: Cache) -> None:
    file = io.BytesIO()
    torch.save(m.index - 1, file)
    file.seek(0)
    m.index = torch.load(file)


def an_operator_with_out(m: Cache) -> None:
    torch.sub(m.index, 1, out=m.index)


def all_deepcopied(m: Cache) -> None:
    m.__dict__["_buffers"] = copy.deepcopy(m).__dict__["_buffers"]
    m.index.sub_(1)


def all_pickled(m: Cache) -> None:
    m.__dict__["_buffers"] = pickle.loads(pickle.dumps(m)).__dict__["_buffers"]
    m.index.sub_(1)


def widened(m: Cache) -> None:
    m.to(torch.float64)
    m.index.sub_(1)


def copied_by_to(m: Cache) -> None:
    m.index = m.index.to(m.index.device, copy=True)
    m.index.sub_(1)


def through_another_module(m: Cache) -> None:
    other = Cache().to(m.index.device)
    other.index = m.index
    other.load_state_dict({"rows": other.rows, "index": m.index.new_tensor([1, 6])})


def a_view_of_a_longer_one(m: Cache) -> None:
    longer = m.index.new_tensor([5, 1, 6])
    m.index = longer[1:]
    longer.sub_(1)


COUNTED: list[Callable[[Cache], None]] = [
    in_place, one_element, copied_into, filled, through_a_view, through_detach, set_to_another, data_assigned,
    data_assigned_twice, data_assigned_from_the_same_memory, resized, a_new_tensor, many_new_tensors,
    on_another_thread, under_inference_mode, state_loaded, state_assigned, cast, moved,
    copied_and_back, pickled, saved, an_operator_with_out, all_deepcopied, all_pickled, widened, copied_by_to,
    through_another_module, a_view_of_a_longer_one,
]  # fmt: skip


def numpy_view(m: Cache) -> None:
    m.index.numpy()[0] = 1


def data_in_place(m: Cache) -> None:
    m.index.data.sub_(1)


def dlpack(m: Cache) -> None:
    np.from_dlpack(m.index)  # shares memory
    torch.from_dlpack(m.index).sub_(1)


def from_numpy(m: Cache) -> None:
    held = m.index.numpy().copy()
    m.index = torch.from_numpy(held)
    held[0] = 1


def shared_with_a_process(m: Cache) -> None:
    m.index.share_memory_()
    m.index.data.sub_(1)


def storage(m: Cache) -> None:
    torch.empty(0, dtype=torch.int64).set_(m.index.untyped_storage()).sub_(1)


UNCOUNTED: list[Callable[[Cache], None]] = [numpy_view, data_in_place, dlpack, from_numpy, shared_with_a_process, storage]
"""PyTorch counts no version for these: on the host they are seen, as it is always read."""


@pytest.fixture(params=["host", "device"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Host memory, or the way of the mirror on a device, where only what PyTorch counts is looked at."""
    stock = mirror._remember

    def remember(tensor: Any, loaded: Any) -> None:
        stock(tensor, loaded)
        mirror._entries[id(tensor)].on_host = False

    skip_code(remember.__code__)
    if request.param == "device":
        monkeypatch.setattr(mirror, "_remember", remember)
    return request.param


@torch.no_grad()
def same(change: Callable[[Cache], None], device: str = "cpu", compiler: str = "eager", **options: int) -> None:
    eager, own = Cache().to(device), Cache().to(device)
    compiled = torch.compile(own, backend="kvfix", options={"compiler": compiler, **options})
    for i in range(9):
        if i in (4, 7):
            change(eager)
            change(own)
        x = torch.full((2, 1), 1.0 + i, device=device, dtype=own.rows.dtype)
        assert torch.equal(eager(x), compiled(x)), i
        assert torch.equal(eager.index, own.index) and torch.equal(eager.rows, own.rows), i


@pytest.mark.parametrize("change", COUNTED, ids=lambda c: c.__name__)
def test_what_pytorch_tells_is_seen(change: Callable[[Cache], None], memory: str) -> None:
    same(change)


@torch.inference_mode()
def test_inference_tensors_are_read(memory: str) -> None:
    same(in_place)


@pytest.mark.parametrize("change", UNCOUNTED, ids=lambda c: c.__name__)
def test_on_the_host_everything_is_seen(change: Callable[[Cache], None]) -> None:
    same(change)


def test_a_steady_tensor_is_not_read_again(memory: str) -> None:
    idx = torch.tensor([1, 2])
    assert [mirror.values(idx) for _ in range(3)] == [(1, 2)] * 3
    assert (mirror.counters.refreshes, mirror.counters.hits) == (1, 2)


@pytest.mark.parametrize("change", [swapped, swapped_with_one_that_is_known], ids=lambda c: c.__name__)
def test_a_tensor_that_is_known_can_be_swapped(change: Callable[[Cache], None], memory: str) -> None:
    """Without `verify`, which keeps the graph as it came, whose fake values hold the tensors weakly."""
    same(change, verify=0)
