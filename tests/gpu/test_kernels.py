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


def linear(dtype: torch.dtype = torch.float32) -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(7, 96).to(dtype), rand(40, 96).to(dtype), rand(40).to(dtype), 1, True]


def linear_in_parts() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(1, 3, 768), rand(2048, 768), None, 3, False]


def linear_of_sixteen_rows() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(16, 768), rand(768, 768), rand(768), 6, True]


def linear_of_sixteen_rows_of_halves() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(16, 2048).bfloat16() / 30, rand(3072, 2048).bfloat16(), None, 3, True]


def linear_of_a_batch(rows: int = 64, dtype: torch.dtype = torch.float32) -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(rows, 768).to(dtype) / 30, rand(2304, 768).to(dtype), rand(2304).to(dtype), 3, True]


def linear_of_forty_rows_of_halves() -> tuple[str, list[Any]]:
    return linear_of_a_batch(40, torch.bfloat16)


def linear_of_many_outputs(dtype: torch.dtype = torch.float32) -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(7, 768).to(dtype) / 30, rand(49152, 768).to(dtype), None, 1, True]


def linears(rows: int = 1, dtype: torch.dtype = torch.bfloat16) -> tuple[str, list[Any]]:
    weights = [rand(n, 2048).to(dtype) for n in (2048, 40, 7)]
    return "linears_few_rows", [rand(rows, 2048).to(dtype), weights, [], 2, True]


GATE = "t0 = a / (1 + exp(-a)); t1 = t0 * b; return t1"


def gated(rows: int = 1, dtype: torch.dtype = torch.bfloat16, k: int = 2048) -> tuple[str, list[Any]]:
    return "gated_few_rows", [rand(rows, k).to(dtype) / 30, [rand(2050, k).to(dtype) for _ in range(2)], [], GATE, True]


def gated_halves_of_seven_rows() -> tuple[str, list[Any]]:
    weight, bias = rand(6144, 768), rand(6144)
    return "gated_few_rows", [rand(7, 768) / 30, list(weight.split(3072)), list(bias.split(3072)), GATE, True]


def gated_sixteen_rows() -> tuple[str, list[Any]]:
    return gated(16)


def attention() -> tuple[str, list[Any]]:
    q, k, v = rand(2, 4, 1, 64), rand(2, 2, 50, 64), rand(2, 2, 50, 64)
    return "decode_attention", [q, k, v, torch.tensor(33, device="cuda"), None, False, 0.125]


def masked_attention() -> tuple[str, list[Any]]:
    name, args = attention()
    return name, [*args[:4], rand(1, 1, 1, 50) > 0, False, 0.125]


def long_attention() -> tuple[str, list[Any]]:
    q, k, v = rand(1, 8, 16, 64).half(), rand(1, 2, 4096, 64).half(), rand(1, 2, 4096, 64).half()
    return "decode_attention", [q, k, v, torch.tensor(3000, device="cuda"), rand(1, 1, 16, 4096), False, 0.125]


def written_out_attention() -> tuple[str, list[Any]]:
    q, k, v = rand(1, 32, 1, 64), rand(1, 8, 1024, 64), rand(1, 8, 1024, 64)
    return "decode_attention", [q, k, v, torch.tensor(700, device="cuda"), rand(1, 1024), False, 0.125, True]


ROW = "a = tl.load(p0 + i0 * 4096 + i1 * 64 + i3).to(tl.float32); b = tl.load(p1 + i3).to(tl.float32); return a * b"


def attention_of_its_own_row(size: int = 88, dtype: torch.dtype = torch.float32) -> tuple[str, list[Any]]:
    p, c, k, v = rand(2, 64, 64).to(dtype), rand(64).to(dtype), rand(2, 4, size, 64).to(dtype), rand(2, 4, size, 64).to(dtype)
    slots, length = torch.tensor([33], device="cuda"), torch.tensor(34, device="cuda")
    return "write_and_attend", [[p, c], ROW, ROW, ROW, 8, slots, k, v, length, None, False, 0.125, False, True]


def long_attention_of_its_own_row() -> tuple[str, list[Any]]:
    return attention_of_its_own_row(2048, torch.bfloat16)


def rows() -> tuple[str, list[Any]]:
    return "write_rows", [rand(2, 16, 8), 1, torch.tensor([3, 5], device="cuda"), rand(2, 2, 8)]


def linear_of(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())


def expected(name: str, args: list[Any]) -> torch.Tensor:
    if name.endswith("_few_rows"):
        x, weights, biases = args[:3]
        if name == "gated_few_rows":
            a, b = (linear_of(x, w, bias) for w, bias in zip(weights, biases or [None, None], strict=True))
            return torch.nn.functional.silu(a) * b
        if name == "linear_few_rows":
            return linear_of(x, weights, biases)
        return torch.cat([linear_of(x, w, None) for w in weights], -1)
    if name == "write_rows":
        return args[0].index_copy(args[1], args[2], args[3])
    if name == "write_and_attend":
        p, c = args[0]
        new = [(p[:, :n, None].float() * c.float()).to(p.dtype) for n in (8, 4)]
        k, v = (t.index_copy(2, args[5], new[1]) for t in args[6:8])
        args = [new[0], k, v, *args[8:]]
    q, k, v, length, mask, causal, scale = args[:7]
    n, groups = k.shape[2] if length is None else int(length), q.shape[1] // k.shape[1]
    k, v = (t[:, :, :n].repeat_interleave(groups, 1).double() for t in (k, v))
    seen = None if mask is None else mask[..., :n] if mask.dtype is torch.bool else mask[..., :n].double()
    return torch.nn.functional.scaled_dot_product_attention(q.double(), k, v, attn_mask=seen, is_causal=causal, scale=scale)


def result(name: str, found: Any, args: list[Any]) -> torch.Tensor:
    """What the op has computed, in one tensor, its parts added."""
    if name == "write_rows":
        return args[0]
    if name in ("decode_attention", "write_and_attend", "gated_few_rows"):
        return found
    return torch.cat([f.double().sum(0) for f in (found if isinstance(found, list) else [found])], -1)


def attention_over_all_keys() -> tuple[str, list[Any]]:
    q, k, v = rand(1, 4, 7, 64), rand(1, 4, 7, 64), rand(1, 4, 7, 64)
    return "decode_attention", [q, k, v, None, rand(1, 1, 7, 7) > -1, False, 0.125]


def linear_of_long_rows() -> tuple[str, list[Any]]:
    return "linear_few_rows", [rand(7, 3072), rand(768, 3072), None, 6, True]


MAKERS = [linear, linear_in_parts, linear_of_sixteen_rows, linear_of_long_rows,
          linear_of_sixteen_rows_of_halves, linear_of_a_batch, linear_of_forty_rows_of_halves,
          linear_of_many_outputs, linears, gated, gated_sixteen_rows,
          gated_halves_of_seven_rows, attention, masked_attention,
          long_attention, written_out_attention, attention_over_all_keys, attention_of_its_own_row,
          long_attention_of_its_own_row, rows]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_kernel(make) -> None:
    torch.manual_seed(0)
    name, args = make()
    wanted = expected(name, args)
    launches = register()
    op = getattr(torch.ops.kvfix, name).default
    graph, mode = fx.Graph(), FakeTensorMode()

    def given(value: Any) -> Any:
        if isinstance(value, list):
            return [given(v) for v in value]
        if not isinstance(value, torch.Tensor):
            return value
        node = graph.placeholder(f"x{len(graph.nodes)}")
        node.meta["val"] = mode.from_tensor(value)
        return node

    graph.output((graph.call_function(op, tuple(map(given, args))),))
    with compiled_meanwhile(fx.GraphModule({}, graph)):
        pass
    device = torch.cuda.current_device()
    compiled = [launch.kernel.device_caches[device][0] for launch in launches[op](*args)]
    before = [len(c) for c in compiled]
    assert min(before) > 0 or name == "write_rows"  # generated by Inductor
    found = op(*args)
    assert name == "write_rows" or [len(c) for c in compiled] == before, "compiled again at the launch"
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in args if isinstance(t, torch.Tensor))
    torch.testing.assert_close(
        result(name, found, args).double(), wanted.double(), rtol=4e-3 if half else 1e-5, atol=4e-3 if half else 2e-5
    )


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
