"""Buffers between a prologue and a recorded core."""

from __future__ import annotations

import threading

import torch
from graphs import parts_of, traced
from torch import Tensor

from fxpass.execute.recording.handover import Buffers, hand_over


def test_what_only_the_core_takes_is_written_into_a_buffer() -> None:
    def step(x: Tensor, w: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
        scaled, shown, view = x * 2, x + 1, cache[0]
        cache.add_(1)
        return scaled @ w + shown @ w, shown, view

    x, w, cache = torch.rand(3, 3), torch.rand(3, 3), torch.zeros(2, 3)
    gm = traced(step, [x, w, cache])
    prologue, core = parts_of(gm)
    names = [n.name for n in prologue.outputs]
    (buffer,) = hand_over(gm, [prologue, core])
    assert [n for n in names if n not in [n.name for n in prologue.outputs]] == ["mul"]
    assert buffer in prologue.inputs and buffer in core.inputs and buffer in core.addresses
    own = Buffers([buffer])
    given = {"x_1": x, "w_1": w, "cache_1": cache, buffer.name: own.tensors()[0]}
    made = prologue.gm(*(given[n.name] for n in prologue.inputs))
    given |= {n.name: value for n, value in zip(prologue.outputs, made, strict=True)}
    assert torch.equal(own.tensors()[0], x * 2)
    out, *_ = core.gm(*(given[n.name] for n in core.inputs))
    assert torch.equal(out, (x * 2) @ w + (x + 1) @ w)


def test_each_thread_has_its_own() -> None:
    gm = traced(lambda x: (x * 2,), [torch.rand(3)])
    own = Buffers(gm.graph.find_nodes(op="placeholder"))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(own.tensors()[0].data_ptr()))
    kept = own.tensors()[0]
    thread.start()
    thread.join()
    assert seen != [kept.data_ptr()]
