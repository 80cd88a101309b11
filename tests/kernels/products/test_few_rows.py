"""Which linear layers become one launch, in how many parts, and what may be read ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import traced
from torch import fx, nn
from torch.nn.functional import linear

from fxpass.kernels.launches import limits, memory_writes
from fxpass.kernels.launches.launch import Gpu, gpu
from fxpass.kernels.products import few_rows
from fxpass.kernels.products.tiles import best_parts, tile_of

H100 = Gpu(processors=132, cache=50 * 2**20, dependent=True)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton's interpreter runs the kernels."""
    monkeypatch.setattr(limits, "DEVICES", {"cpu", "cuda"})


@pytest.mark.parametrize(
    "rows, outputs, k, size, parts",
    [
        (7, [2304], 768, 4, 3),
        (7, [768], 768, 4, 3),
        (7, [6144], 768, 4, 3),
        (24, [448], 768, 4, 12),
        (7, [768], 3072, 4, 6),
        (7, [49152], 768, 4, 1),
        (1, [2048, 512, 512], 2048, 2, 1),
        (1, [8192, 8192], 2048, 2, 1),
        (1, [2048], 8192, 2, 2),
        (1, [128256], 2048, 2, 1),
        (1, [8], 8, 4, 1),
        (4, [16384], 2048, 2, 1),
        (16, [2048], 8192, 2, 4),
        (8, [2048], 2048, 2, 4),
    ],
)
def test_the_parts_that_were_fastest(rows: int, outputs: list[int], k: int, size: int, parts: int) -> None:
    assert best_parts(rows, outputs, k, size, H100) == parts


@pytest.mark.parametrize("rows, outputs, k, size, registers", [
    (7, 6144, 768, 4, 96), (8, 5000, 700, 4, 96), (16, 6144, 768, 4, None), (7, 2304, 768, 4, None), (7, 49152, 768, 4, None),
    (7, 6144, 768, 2, None),
])  # fmt: skip
def test_programs_that_all_start_at_once(rows: int, outputs: int, k: int, size: int, registers: int | None) -> None:
    """Five of them, of 128 threads, fit on a processor with 65,536 registers."""
    tile = tile_of(rows, [outputs], k, size, H100)
    assert tile.registers == registers
    programs = -(-outputs // tile.outputs) * best_parts(rows, [outputs], k, size, H100)
    assert registers is None or programs <= 5 * H100.processors and 5 * 32 * tile.warps * registers <= 65536


def test_a_device_that_is_no_gpu() -> None:
    assert not gpu(torch.device("cpu")).dependent


def used(fn: Callable[..., Any], *inputs: torch.Tensor) -> tuple[fx.GraphModule, list[fx.Node]]:
    """``fn``'s graph with its products replaced, which gives what ``fn`` gives; and these products."""
    gm = traced(fn, list(inputs))
    given = [i.clone() for i in inputs]
    expected = fn(*given)
    few_rows.use_few_rows(gm.graph, memory_writes.MemoryWrites(gm.graph))
    gm.graph.lint()
    gm.recompile()
    torch.testing.assert_close(gm(*inputs), expected)
    torch.testing.assert_close(list(inputs), given)
    ops = [torch.ops.kvfix.linear_few_rows.default, torch.ops.kvfix.linears_few_rows.default]
    return gm, [n for n in gm.graph.nodes if n.target in ops]


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def counts(nodes: list[fx.Node]) -> list[int]:
    return [len(n.args[1]) if isinstance(n.args[1], (list, tuple)) else 1 for n in nodes]


X, W, V, U = (1, 1, 16), (8, 16), (4, 16), (6, 16)


def of_three(x, w, v, u):
    return linear(x, w), linear(x, v) * 2, linear(x, u).relu()


def of_four(x, w, v, u):
    return linear(x, w), linear(x, v), linear(x, u), linear(x, w + 0)


def with_biases(x, w, v, u):
    return linear(x, w, w[:, 0].contiguous()), linear(x, v, v[:, 0].contiguous()), linear(x, u)


def rows_written_between(x, w, v, u):
    x = x * 1
    a = linear(x, w)
    x.mul_(2)
    return a, linear(x, v), linear(x, u)


def weight_written_between(x, w, v, u):
    a = linear(x, w)
    v.mul_(2)
    return a, linear(x, v), linear(x, u)


def of_other_rows(x, w, v, u):
    return linear(x, w), linear(x + 1, v), linear(x + 1, u)


@pytest.mark.parametrize(
    "fn, groups, early",
    [
        (of_three, [3], [True]),
        (of_four, [3, 1], [True, False]),
        (with_biases, [1, 1, 1], [False, False, True]),
        (rows_written_between, [1, 2], [True, True]),
        (weight_written_between, [1, 2], [True, False]),
        (of_other_rows, [1, 1, 1], [True] * 3),
    ],
)
def test_groups(fn: Callable[..., Any], groups: list[int], early: list[bool]) -> None:
    """Layers of the same rows, given before the first of them; ahead is read what nothing writes."""
    _, nodes = used(fn, rand(*X), rand(*W), rand(*V), rand(*U))
    assert counts(nodes) == groups
    assert [n.args[-1] for n in nodes] == early


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_parts_are_added_in_the_dtype_of_the_rows(dtype: torch.dtype) -> None:
    gm, (node,) = used(lambda x, w: linear(x, w), (rand(7, 2048) / 32).to(dtype), rand(16, 2048).to(dtype))
    assert node.args[-2] > 1
    assert gm.graph.find_nodes(op="call_function", target=torch.ops.aten.sum.dim_IntList)


@pytest.mark.parametrize("bias", [True, False])
def test_few_outputs_of_many_rows_are_turned(bias: bool) -> None:
    def fn(x, w, b):
        return linear(x, w, b if bias else None) * 2

    gm, (node,) = used(fn, rand(3, 7, 32), rand(5, 32), rand(5))
    assert node.args[0].name.startswith("w") and not node.args[-1]


@pytest.mark.parametrize("outputs, ops", [([5, 3, 1], 1), ([24, 2, 24], 1), ([5, 4, 3, 2, 1], 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_of_the_same_many_rows_are_turned_at_once(outputs: list[int], ops: int, bias: bool) -> None:
    """Also where they have more outputs together than a program computes."""

    def fn(x, *parameters):
        half = len(parameters) // 2
        return [linear(x, w, b if bias else None) * 2 for w, b in zip(parameters[:half], parameters[half:], strict=True)]

    _, nodes = used(fn, rand(3, 7, 40), *(rand(n, 40) for n in outputs), *(rand(n) for n in outputs))
    assert len(nodes) == ops


def test_a_weight_that_is_written_in_between_is_not_turned_with_others() -> None:
    def fn(x, w, v):
        first = linear(x, w)
        v.mul_(2)
        return first, linear(x, v)

    assert len(used(fn, rand(20, 32), rand(5, 32), rand(5, 32))[1]) == 2


def test_few_outputs_that_are_left_to_cublas() -> None:
    assert used(lambda x, w: linear(x, w), rand(2, 20, 32).transpose(0, 1), rand(5, 32))[1] == []
    assert used(lambda x, w: linear(x, w), rand(20, 32).half(), rand(5, 32).half())[1] == []
    assert used(lambda x, w: linear(x, w), rand(20, 32), rand(limits.MAX_OUTPUTS + 1, 32))[1] == []


class Layer(nn.Module):
    """Attention over a cache, and a gated product."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, n, bias=False) for n in (32, 16, 16, 32))
        self.gate, self.up, self.down = nn.Linear(32, 24), nn.Linear(32, 24), nn.Linear(24, 32)
        self.register_buffer("keys", torch.full((1, 1, 8, 16), torch.nan))
        self.register_buffer("values", torch.full((1, 1, 8, 16), torch.nan))

    def forward(self, x: torch.Tensor, pos: int) -> torch.Tensor:
        q, k, v = (p(x).view(1, x.shape[1], -1, 16).transpose(1, 2) for p in (self.q, self.k, self.v))
        end = pos + x.shape[1]
        self.keys[:, :, pos:end], self.values[:, :, pos:end] = k, v
        keys, values = self.keys[:, :, :end], self.values[:, :, :end]
        y = nn.functional.scaled_dot_product_attention(q, keys, values, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_with_all_kernels(used: set[Any], rows: int) -> None:
    """A core as a GPU would get it, each kernel in the interpreter, against eager; the cache is NaN where it is not filled."""
    torch.manual_seed(0)
    model = nn.Sequential(Layer(), Layer())
    for layer in model:
        layer.requires_grad_(False)
    eager = [Layer(), Layer()]
    for own, other in zip(eager, model, strict=True):
        own.load_state_dict(other.state_dict())

    def step(x: torch.Tensor, pos: int) -> torch.Tensor:
        for layer in model:
            x = layer(x, pos)
        return x

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for pos in (0, rows):
        x = torch.randn(1, rows, 32)
        wanted = x
        for layer in eager:
            wanted = layer(wanted, pos)
        torch.testing.assert_close(compiled(x, pos), wanted, rtol=1e-5, atol=1e-5)
    for own, other in zip(eager, model, strict=True):
        torch.testing.assert_close(own.keys, other.keys, equal_nan=True)
    attention = "write_and_attend.default" if rows == 1 else "decode_attention.default"
    assert {attention, "linears_few_rows.default", "linear_few_rows.default"} <= {op.__name__ for op in used}
