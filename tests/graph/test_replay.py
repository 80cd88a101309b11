"""A normal form is the same whether or not ops of the same kind are traced once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import kvfix
from torch import fx
from torch.nn.functional import dropout, layer_norm, linear, scaled_dot_product_attention

from fxpass import api
from fxpass.graph.normal_form import NormalForm
from fxpass.graph.replay import Replaying
from toto_model import Toto, TotoConfig

X, Y, W, B = torch.randn(3, 4, 4), torch.randn(3, 4, 4), torch.randn(4, 4), torch.randn(4)


def layers(x, w, b):
    for _ in range(4):
        y = layer_norm(linear(x, w, b), [4])
        q, k, v = (y + 1).view(3, 4, 2, 2).transpose(1, 2).unsqueeze(0).unbind(0) * 3
        x = x + scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(3, 4, 4)
    return x


def written(x, y):
    a, b = x + 1, y + 1
    c = b[0]
    a.mul_(2)
    c.add_(a[0])
    d = b.view(-1)
    b[1:] = 3
    return a, b, d, c + 1, d + 1


def turned(x, y):
    a, b, c = x[0] + 1, y[0] + 1, x[0] + 1
    b.t_()
    c.t_().t_()
    d = y[0] + 1
    d.t_()
    return a + b, b + c, a.t(), b.t(), c.t(), d.t(), x[0] + 1, d.mul_(2), c.mul_(2), a.mul_(2)


def literals(x):
    zeros = [x / 0.0, x / -0.0, x * 0.0, x * -0.0, x / float("nan"), x / float("nan")]
    return zeros + [x + 1, x + True, x + 1.0, x.sum(1), x.sum(2), x.to(torch.float32), x.to(torch.float64)]


def the_same_twice(x, y):
    return (
        x @ x,
        x @ y,
        y @ y,
        y @ x,
        torch.cat([x, x]),
        torch.cat([x, y]),
        torch.addcmul(x, x, y),
        torch.addcmul(x, y, y),
    )


def nothing(x, y):
    a, b = x.contiguous(), y.contiguous()
    c, d = dropout(a, 0.5, False), dropout(b, 0.5, False)
    e, f = x.to(x.dtype), y.to(x.dtype)
    return (
        a + 1,
        b + 1,
        c + 2,
        d + 2,
        (e + x).contiguous(),
        (f + y).contiguous(),
        x.reshape(3, 4, 4),
        y.reshape(3, 4, 4),
    )


@torch.compiler.allow_in_graph
def first(x, n):
    return x[: n.item()]


def constants(x):
    a, b = torch.tensor(2), torch.tensor(3)
    return x * a, x * b, x * (a + 1), x * (b + 1), first(x, a + 1), first(x, b + 1)


def strange_memory(x, y):
    a, b = (x.view(3, 2, 2, 4) + y.view(3, 2, 2, 4)).chunk(2, 1)
    c, d = (y.view(3, 2, 2, 4) + x.view(3, 2, 2, 4)).chunk(2, 1)
    return [t for v in (a, b, c, d) for t in (v.squeeze(1), v.squeeze(1).transpose(1, 2), v + 1)]


def chance(x, y):
    return torch.rand_like(x), torch.rand_like(x), dropout(x, 0.5), dropout(y, 0.5), torch.nonzero(x), torch.nonzero(y)


def growing(x, y):
    n = x.shape[1]
    a, b = y[:, : n - 1], y[:, : n - 1]
    c, d = x.expand(2, *x.shape), x.expand(2, *x.shape)
    return (
        a + 1,
        b + 1,
        c,
        d,
        a.reshape(-1),
        b.reshape(-1),
        torch.arange(n),
        torch.arange(n),
        y[:, :2] + n,
        x[:, :2] + n,
    )


@torch.compiler.allow_in_graph
def two_ops(x, y):
    y.add_(1)
    return x + 1


@torch.compiler.allow_in_graph
def with_a_size(x):
    return x.new_zeros(x.shape)


def opaque(x):
    a, b = x * 2, x * 3
    return two_ops(x, a), two_ops(x, b), with_a_size(a), with_a_size(b), a, b


def parts(x, y):
    return [t[i].transpose(0, 1)[..., 1:] for t in (x, y) for i in range(3)]


def views_turned(x, y):
    a, v = y + 1, x.view(3, 16)
    a.unsqueeze_(0)
    v.unsqueeze_(0)
    b, c = (y + 1).view(1, 3, 16), x.view(1, 3, 16)
    b.squeeze_(0)
    c.squeeze_(0)
    d, e = x.view(4, 12), y.view(4, 12)
    d.t_()
    e.t_()
    return a[..., 1:] * 1, v[..., 1:] * 1, b[..., 0], c[..., 0], d.reshape(-1) + 1, e.reshape(-1) + 1


def turned_back(x, y):
    a, b = x[0] + 1, y[0, :2] + 1
    c, d = x[0] + 1, y[0, :2] + 1
    for t in (a, b, c, d):
        t.t_()
        t.mul_(2)
        t.t_()
    return a, b, c, d


@torch.compiler.allow_in_graph
def wrapped(x):
    return ((x + 1) * 2,)


@torch.compiler.allow_in_graph
def placed(x):
    return x.as_strided((2,), (1,), x.storage_offset())


@torch.compiler.allow_in_graph
def sharing(x, y):
    return x + y if x.untyped_storage()._cdata == y.untyped_storage()._cdata else x - y


def asking(x, y):
    z = x * 2
    return wrapped(x), wrapped(y), placed(z[0]) * 1, placed(z[1]) * 1, sharing(z[0], z[0].t().t()), sharing(z[0], y[0])


def read(x, y):
    a, b = x + 1, y + 1
    return torch.nonzero(a), torch.nonzero(b), torch.nonzero(a), a * b


def pieces(x, y):
    a, b = x.split([1, 2]), y.split([1, 2])
    c, d = (x + 1).unbind(1), (y + 1).unbind(1)
    return a, b, c, d, torch.max(x, 0), torch.max(y, 0), [p.add_(1) for p in (*c, *d)], torch.split(y, 2), x.unbind(1)


def grown(size: int) -> torch.Tensor:
    x = torch.randn(3, size, 4)
    torch._dynamo.mark_dynamic(x, 1)
    return x


CASES: dict[str, tuple[Callable[..., Any], Callable[[], list[torch.Tensor]]]] = {
    "layers": (layers, lambda: [X, W, B]),
    "written": (written, lambda: [X, Y]),
    "turned": (turned, lambda: [X, Y]),
    "literals": (literals, lambda: [X]),
    "the same twice": (the_same_twice, lambda: [X, Y]),
    "one memory": (the_same_twice, lambda: [X[:2], X[1:]]),
    "nothing": (nothing, lambda: [X, Y]),
    "constants": (constants, lambda: [X]),
    "strange memory": (strange_memory, lambda: [X, Y]),
    "chance": (chance, lambda: [X, Y]),
    "growing": (growing, lambda: [grown(5), grown(7)]),
    "opaque": (opaque, lambda: [grown(5)]),
    "parts": (parts, lambda: [X, Y]),
    "pieces": (pieces, lambda: [X, Y]),
    "views turned": (views_turned, lambda: [X, Y]),
    "turned back": (turned_back, lambda: [X, Y]),
    "asking": (asking, lambda: [X, Y]),
    "read": (read, lambda: [X, Y]),
    "parameters": (layers, lambda: [X, torch.nn.Parameter(W), torch.nn.Parameter(B)]),
}


def described(gm: fx.GraphModule) -> list[Any]:
    """All of a graph: its ops, their values, and which share memory."""
    memories: dict[int, int] = {}

    def value(v: Any) -> Any:
        if isinstance(v, torch.Tensor):
            memory = memories.setdefault(v.untyped_storage()._cdata, len(memories))
            return type(v), v.dtype, str([*v.shape, *v.stride(), v.storage_offset()]), v.requires_grad, memory
        return [value(e) for e in v] if isinstance(v, (tuple, list)) else str(v)

    nodes = gm.graph.nodes
    calls = [(n.name, n.op, str(n.target), repr(n.args), repr(n.kwargs)) for n in nodes]
    names = ("stack_trace", "nn_module_stack", "unbacked_bindings")
    kept = [{k: n.meta.get(k) for k in names} for n in nodes]
    return [(*call, value(n.meta.get("val")), k) for call, n, k in zip(calls, nodes, kept, strict=True)]


def normal_forms(run: Callable[[], Any]) -> list[list[Any]]:
    """Of each graph that kvfix is given, in order."""
    graphs: list[list[Any]] = []
    stock = api.normal_form

    def normal_form(*args: Any) -> NormalForm:
        form = stock(*args)
        graphs.append(described(form.gm))
        return form

    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(api, "normal_form", normal_form)
        run()
    return graphs


def assert_same(run: Callable[[], Any]) -> None:
    once = normal_forms(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replaying, "run_node", fx.Interpreter.run_node)
        always = normal_forms(run)
    assert len(once) == len(always) > 0
    for a, b in zip(once, always, strict=True):
        for mine, theirs in itertools.zip_longest(a, b):
            assert mine == theirs


@pytest.fixture(autouse=True)
def settings():
    with torch._dynamo.config.patch(capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", CASES)
def test_of_functions(name) -> None:
    function, inputs = CASES[name]
    assert_same(lambda: kvfix(function)(*inputs()))
    if function is not chance:
        with torch.no_grad():
            mine = inputs()
            theirs = [x.clone() for x in mine]
            torch.testing.assert_close(kvfix(function)(*mine), function(*theirs), rtol=0, atol=0, equal_nan=True)
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kv_cache", ["upstream", "fixed_size"])
def test_of_models(kv_cache) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TotoConfig.tiny(), num_layers=2, spacewise_every_n_layers=2)
    model, patch = Toto(config, kv_cache).eval().model, config.patch_size
    series = torch.randn(1, 3, 10 * patch)

    def forecast() -> None:
        cache = model.allocate_kv_cache(1, 3, 16 * patch, "cpu", torch.float32)
        compiled = kvfix(model)
        for patches in (6, 7, 8):
            part = series[..., : patches * patch].contiguous()
            masks = {
                "input_padding_mask": torch.ones_like(part, dtype=torch.bool),
                "id_mask": torch.zeros_like(part).int(),
            }
            compiled(part, **masks, kv_cache=cache, scaling_prefix_length=6 * patch)

    assert_same(forecast)


def test_each_kind_of_op_is_traced_once(monkeypatch) -> None:
    traced: list[fx.Node] = []
    stock = fx.Interpreter.run_node
    monkeypatch.setattr(fx.Interpreter, "run_node", lambda self, n: [traced.append(n), stock(self, n)][1])

    def model(x, w, layers):
        for _ in range(layers):
            x = linear(x.transpose(0, 1).contiguous().transpose(0, 1) + 1, w)
        return x

    counts = []
    for layers in (3, 9):
        traced.clear()
        torch._dynamo.reset()
        kvfix(model)(torch.randn(4, 4), torch.randn(4, 4), layers)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 6
