"""Which ops go into the kernel of the layers before them, and that they compute the same there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import traced
from torch import fx
from torch.nn.functional import gelu, linear, relu, silu

from fxpass.kernels.launches import limits, memory_writes
from fxpass.kernels.products import few_rows

N = 20


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton's interpreter runs the kernels."""
    monkeypatch.setattr(limits, "DEVICES", {"cpu", "cuda"})


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(*shape, dtype=torch.float64) / 3).to(dtype)


def gated(fn: Callable[..., Any], *inputs: torch.Tensor) -> list[fx.Node]:
    """The functions of layers in ``fn``'s graph, which gives what ``fn`` gives, once they are replaced."""
    gm = traced(fn, list(inputs))
    given = [i.clone() for i in inputs]
    expected = fn(*[g.double() for g in given])
    few_rows.use_few_rows(gm.graph, memory_writes.MemoryWrites(gm.graph))
    gm.graph.lint()
    gm.recompile()
    close = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[inputs[0].dtype]
    found = gm(*inputs)
    for f, e in zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]:
        assert f.dtype is inputs[0].dtype
        torch.testing.assert_close(f.double(), e, rtol=close, atol=close, equal_nan=True)
    return gm.graph.find_nodes(op="call_function", target=torch.ops.kvfix.gated_few_rows.default)


def by_chunk(x, w, v, b):
    g, u = linear(x, w, b).chunk(2, -1)
    return silu(g) * u


def by_split(x, w, v, b):
    u, g = linear(x, w).split(len(w) // 2, dim=-1)
    return u * gelu(g)


def by_slices(x, w, v, b):
    y, n = linear(x, w, b), len(w) // 2
    return gelu(y[..., :n], approximate="tanh") * y[..., n:] + y[..., n:] / 3


def of_two_layers(x, w, v, b):
    return torch.sigmoid(linear(x, w)) * (linear(x, v) + 1)


def of_one_layer(x, w, v, b):
    return relu(linear(x, w, b)) - 1


def of_negative_sums(x, w, v, b):
    return -(linear(x, w) + linear(x, v)).exp()


FUNCTIONS = [by_chunk, by_split, by_slices, of_two_layers, of_one_layer, of_negative_sums]


@pytest.mark.parametrize("fn", FUNCTIONS)
@pytest.mark.parametrize("rows, k, dtype", [(1, 24, torch.float16), (3, 72, torch.float32), (7, 200, torch.float32)])
def test_a_function_of_layers_is_one_kernel(fn: Callable[..., Any], rows: int, k: int, dtype: torch.dtype) -> None:
    w, v, b = rand(2 * N, k, dtype=dtype), rand(2 * N, k, dtype=dtype), rand(2 * N, dtype=dtype)
    nodes = gated(fn, rand(2, rows, k, dtype=dtype)[1], w, v, b)
    assert len(nodes) == 1 and nodes[0].args[-1] is True


def test_no_number_and_infinity() -> None:
    x = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [2.0, 1.0]])
    assert len(gated(of_one_layer, x, torch.ones(2 * N, 2), rand(1), torch.ones(2 * N))) == 1
    assert len(gated(of_two_layers, x, torch.ones(2 * N, 2), torch.ones(2 * N, 2), rand(1))) == 1


def test_layers_in_a_row() -> None:
    def fn(x, w, v, b):
        return silu(linear(silu(linear(x, w)) * linear(x, v), b))

    assert len(gated(fn, rand(2, 16), rand(N, 16), rand(N, 16), rand(2 * N, N))) == 2


def used_otherwise(x, w, v, b):
    y = linear(x, w)
    return y.relu() + y[..., :1]


def half_used_otherwise(x, w, v, b):
    g, u = linear(x, w).chunk(2, -1)
    return silu(g) * u, u


def of_other_rows(x, w, v, b):
    return silu(linear(x, w)) * linear(x + 1, v)


def with_another_tensor(x, w, v, b):
    return silu(linear(x, w)) * b


def in_another_dtype(x, w, v, b):
    return linear(x, w).double().relu() if x.dtype is torch.float32 else linear(x, w).relu()


def of_one_bias(x, w, v, b):
    return silu(linear(x, w, b)) * linear(x, v)


def written_between(x, w, v, b):
    y = linear(x, w)
    v.mul_(2)
    return silu(y) * linear(x, v)


def along_the_rows(x, w, v, b):
    g, u = linear(x, w).chunk(2, 0)
    return silu(g) * u


@pytest.mark.parametrize("fn, count", [
    (used_otherwise, 0), (half_used_otherwise, 0), (of_other_rows, 1), (with_another_tensor, 1), (in_another_dtype, 0),
    (of_one_bias, 0), (written_between, 0), (along_the_rows, 0),
])  # fmt: skip
def test_what_stays_apart(fn: Callable[..., Any], count: int) -> None:
    """Of a function of more, what it computes of one layer may still go into that layer's kernel."""
    gm = traced(fn, inputs := [rand(4, 16), rand(2 * N, 16), rand(2 * N, 16), rand(2 * N)])
    few_rows.use_few_rows(gm.graph, memory_writes.MemoryWrites(gm.graph))
    gm.recompile()
    torch.testing.assert_close(gm(*[i.clone() for i in inputs]), fn(*[i.clone() for i in inputs]))
    assert len(gm.graph.find_nodes(op="call_function", target=torch.ops.kvfix.gated_few_rows.default)) == count


def test_only_sums_that_are_not_cut() -> None:
    """Seven rows of many columns are summed in parts, which the consumer adds."""
    assert gated(by_chunk, rand(7, 300), rand(64, 300), rand(1), rand(64)) == []
