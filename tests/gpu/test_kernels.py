"""The CUDA kernels give what the ops they stand for give, and what is compiled ahead is what is launched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.kernels.select import compiled_meanwhile, register

pytestmark = pytest.mark.gpu


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.float64).float()


def linear() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(7, 96), rand(40, 96), rand(40)]


def linear_without_bias() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(1, 3, 64), rand(2048, 64), None]


def attention() -> tuple[str, list[Any]]:
    q, k, v = rand(2, 4, 1, 64), rand(2, 2, 50, 64), rand(2, 2, 50, 64)
    return "decode_attention", [q, k, v, torch.tensor(33, device="cuda"), None, 0.125]


def masked_attention() -> tuple[str, list[Any]]:
    name, args = attention()
    return name, [*args[:4], rand(1, 1, 1, 50) > 0, 0.125]


def rows() -> tuple[str, list[Any]]:
    return "write_rows", [rand(2, 16, 8), 1, torch.tensor([3, 5], device="cuda"), rand(2, 2, 8)]


def expected(name: str, args: list[Any]) -> torch.Tensor:
    if name == "linear_few_rows":
        x, weight, bias = (None if a is None else a.double() for a in args)
        return torch.nn.functional.linear(x, weight, bias)
    if name == "write_rows":
        return args[0].index_copy(args[1], args[2], args[3])
    q, k, v, length, mask, scale = args
    n, groups = int(length), q.shape[1] // k.shape[1]
    k, v = (t[:, :, :n].repeat_interleave(groups, 1).double() for t in (k, v))
    seen = None if mask is None else mask[..., :n]
    return torch.nn.functional.scaled_dot_product_attention(q.double(), k, v, attn_mask=seen, scale=scale)


@pytest.mark.parametrize("make", [linear, linear_without_bias, attention, masked_attention, rows])
def test_kernel(make) -> None:
    torch.manual_seed(0)
    name, args = make()
    wanted = expected(name, args)
    launches = register()
    op = getattr(torch.ops.kvfix, name).default
    graph, mode = fx.Graph(), FakeTensorMode()
    given = [graph.placeholder(f"x{i}") if isinstance(a, torch.Tensor) else a for i, a in enumerate(args)]
    for node, value in zip(given, args, strict=True):
        if isinstance(node, fx.Node):
            node.meta["val"] = mode.from_tensor(value)
    graph.output((graph.call_function(op, tuple(given)),))
    with compiled_meanwhile(fx.GraphModule({}, graph)):
        pass
    compiled = launches[op](*args).kernel.device_caches[torch.cuda.current_device()][0]
    before = len(compiled)
    assert before > 0
    found = op(*args)
    assert len(compiled) == before, "compiled again at the launch"
    found = args[0] if found is None else found
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", range(3))
@pytest.mark.parametrize("slot", [-1, -(2**40), 4, 2**40])
def test_a_slot_outside_of_the_buffer_writes_nothing(dim: int, slot: int) -> None:
    register()
    around = rand(6, 6, 6)
    buffer, before = around[1:5, 1:5, 1:5], around.clone()
    source = rand(*(2 if d == dim else 4 for d in range(3)))
    slots = torch.tensor([slot, 2], device="cuda")
    torch.ops.kvfix.write_rows(buffer, dim, slots, source)
    before[1:5, 1:5, 1:5].select(dim, 2).copy_(source.select(dim, 1))
    assert torch.equal(around, before)
