"""What the CUDA kernels are put in for, and what they leave alone; decided from metadata, so no GPU is needed."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

import fxpass.kernels.writes.write_rows  # noqa: F401  (registers the operator)
from fxpass import backend
from fxpass.execute.partition.outside import works_on
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.marks import given_to
from fxpass.kernels.launches.limits import FEW_QUERIES, MAX_QUERIES, MAX_ROWS
from fxpass.kernels.products.few_rows import few_rows
from fxpass.kernels.select import _few_queries, _writes_rows, over_all_keys

aten = torch.ops.aten
MODE = FakeTensorMode()


def fake(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cuda") -> torch.Tensor:
    with MODE:
        return torch.empty(shape, dtype=dtype, device=device)


def call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call of ``target`` on inputs that hold the tensors among ``args``."""
    graph = fx.Graph()
    nodes = [graph.placeholder("x") if isinstance(a, torch.Tensor) else a for a in args]
    for node, value in zip(nodes, args, strict=True):
        if isinstance(node, fx.Node):
            node.meta["val"] = value
    return graph.call_function(target, tuple(nodes), kwargs)


def linear(x: torch.Tensor | None = None, weight: torch.Tensor | None = None) -> bool:
    return few_rows(
        call(aten.linear.default, fake(7, 64) if x is None else x, fake(32, 64) if weight is None else weight)
    )


def test_an_op_that_only_writes_works_on_nothing_that_grows() -> None:
    """It gives no value, and so has no size, whatever it writes to."""
    graph = fx.Graph()
    buffer, slots, source = (graph.placeholder(name) for name in ("buffer", "slots", "source"))
    write = graph.call_function(torch.ops.kvfix.write_rows.default, (buffer, 1, slots, source))
    graph.output(())
    assert is_heavy(write) and works_on([graph], {sympy.Symbol("s0")}) is None


def transposed() -> torch.Tensor:
    return fake(64, 32).t()


@pytest.mark.parametrize(
    "given",
    [
        {"x": fake(MAX_ROWS + 1, 64)},
        {"x": fake(2, MAX_ROWS, 64)},
        {"x": fake(17, 64, dtype=torch.float16), "weight": fake(32, 64, dtype=torch.float16)},
        {"x": fake(7, 64, device="cpu")},
        {"x": fake(7, 64, dtype=torch.float64), "weight": fake(32, 64, dtype=torch.float64)},
        {"weight": fake(32, 64, dtype=torch.float16)},
        {"weight": transposed()},
        {"weight": fake(2**25 + 1, 64)},
        {"weight": fake(0, 64)},
    ],
)
def test_products_that_are_left_to_cublas(given: dict[str, torch.Tensor]) -> None:
    assert linear()
    assert not linear(**given)


def write(buffer: torch.Tensor | None = None, slots: torch.Tensor | None = None) -> bool:
    buffer = fake(2, 3, 16, 8) if buffer is None else buffer
    slots = fake(1, dtype=torch.int64) if slots is None else slots
    node = call(aten.index_copy_.default, buffer, 2, slots, fake(2, 3, 1, 8))
    return _writes_rows(node)


@pytest.mark.parametrize(
    "given",
    [
        {"buffer": fake(2, 3, 16, 8, device="cpu")},
        {"buffer": fake(1, 2, 3, 16, 8)},
        {"buffer": fake(2, 3, 2**28 // 3 * 2, 8)},
        {"slots": fake(1, 1, dtype=torch.int64)},
    ],
)
def test_writes_that_are_left_alone(given: dict[str, Any]) -> None:
    """Above all a model's own: nobody has checked that its rows are in the buffer."""
    assert write()
    assert not write(**given)


@pytest.mark.parametrize("dtype, taken", [(torch.float32, True), (torch.int8, True), (torch.float8_e4m3fn, False)])
def test_rows_of_a_buffer_that_is_not_contiguous(dtype: torch.dtype, taken: bool) -> None:
    """They are put in by `index_put_`, and the kernel is given the dim and the slots."""
    graph = fx.Graph()
    buffer, slots, rows = (graph.placeholder(name) for name in ("buffer", "slots", "rows"))
    buffer.meta["val"] = fake(2, 16, 3, 8, dtype=dtype).transpose(1, 2)
    slots.meta["val"], rows.meta["val"] = fake(1, dtype=torch.int64), fake(2, 3, 1, 8, dtype=dtype)
    node = graph.call_function(aten.index_put_.default, (buffer, [None, None, slots], rows))
    assert given_to(node) == (buffer, 2, slots, rows)
    assert _writes_rows(node) == taken


@torch.no_grad()
def test_the_rewrites_own_writes_are_known_to_be_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten = []
    stock = backend.rewrite_normal_form
    monkeypatch.setattr(backend, "rewrite_normal_form", lambda *a, **k: rewritten.append(stock(*a, **k)) or rewritten[-1])

    @torch.compile(backend="kvfix", options={"compiler": "eager"})
    def step(cache, own, row, x, pos):
        cache[:, pos : pos + 1] = x
        own.index_copy_(1, row, x)
        return cache[:, : pos + 1].sum(1) + own.sum(1)

    cache, own = torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    for pos in range(3):
        step(cache, own, torch.tensor([pos]), torch.ones(2, 1, 4), pos)
    normal, outcome = rewritten[-1]
    writes = normal.graph.find_nodes(op="call_function", target=aten.index_copy_.default)
    assert [node in outcome.marks.in_bounds for node in writes] == [True, False]


def attend(q: torch.Tensor | None = None, k: torch.Tensor | None = None, v: torch.Tensor | None = None) -> bool:
    k = fake(2, 2, 50, 64) if k is None else k
    node = call(
        aten.scaled_dot_product_attention.default, fake(2, 4, 1, 64) if q is None else q, k, k if v is None else v
    )
    return _few_queries(*node.all_input_nodes)


@pytest.mark.parametrize(
    "given",
    [
        {"q": fake(2, 4, MAX_QUERIES + 1, 64)},
        {"q": fake(4, 4, 1, 64), "k": fake(1, 2, 50, 64)},
        {"q": fake(1, 4, 1, 64)},
        {"k": fake(2, 3, 50, 64)},
        {"v": fake(2, 4, 50, 64)},
        {"v": fake(2, 2, 50, 32)},
        {"q": fake(2, 4, 1, 48), "k": fake(2, 2, 50, 48)},
        {"q": fake(2, 4, 1, 64, dtype=torch.float16)},
        {"q": fake(2, 4, 1, 64, device="cpu"), "k": fake(2, 2, 50, 64, device="cpu")},
        {"k": fake(2, 2, 2**23 + 1, 64)},
    ],
)
def test_attention_that_is_left_to_torch(given: dict[str, Any]) -> None:
    assert attend()
    assert not attend(**given)


@pytest.mark.parametrize(
    "q, rest, kwargs, fits",
    [
        (fake(2, 4, 7, 64), [], {}, True),
        (fake(2, 4, 1, 64), [fake(1, 1, 1, 50), 0.0, True], {"scale": 2.0}, True),
        (fake(2, 8, 7, 64), [], {"enable_gqa": True}, True),
        (fake(2, 8, 7, 64), [], {}, False),
        (fake(2, 4, FEW_QUERIES + 1, 64), [], {}, False),
        (fake(2, 4, 7, 64), [None, 0.1], {}, False),
    ],
)
def test_attention_over_all_keys(q: torch.Tensor, rest: list[Any], kwargs: dict[str, Any], fits: bool) -> None:
    keys = fake(2, 4, 50, 64)
    node = call(aten.scaled_dot_product_attention.default, q, keys, keys, *rest, **kwargs)
    found = over_all_keys(node)
    assert (found is not None) is fits
    if found is not None:
        assert found.length is None and found.is_causal is (len(rest) == 3)
        assert found.scale == kwargs.get("scale", 0.125) and found.mask is (node.args[3] if rest else None)
