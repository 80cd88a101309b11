"""Index tensors on a GPU that are changed behind the back of what is compiled, in every way that PyTorch counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from index_tensors.test_staleness import COUNTED, Cache, in_place, same

pytestmark = pytest.mark.gpu


def on_another_stream(m: Cache) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        m.index.sub_(1)
    torch.cuda.current_stream().wait_stream(stream)


def to_the_host_and_back(m: Cache) -> None:
    m.cpu()
    m.cuda()
    m.index.sub_(1)


WAYS = [*COUNTED, on_another_stream, to_the_host_and_back]


@pytest.mark.parametrize("change", WAYS, ids=lambda c: c.__name__)
def test_what_pytorch_tells_is_seen(change: Callable[[Cache], None]) -> None:
    same(change, "cuda")


@pytest.mark.parametrize("change", [in_place, on_another_stream, to_the_host_and_back], ids=lambda c: c.__name__)
def test_so_it_is_between_replays(change: Callable[[Cache], None]) -> None:
    same(change, "cuda", "inductor")


@torch.inference_mode()
def test_inference_tensors_are_read() -> None:
    same(in_place, "cuda")
