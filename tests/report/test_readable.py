"""The code of three small models, as it is printed; the same in every run and process."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from expecttest import assert_expected_inline
from torch import Tensor, fx, nn

import fxpass
from fxpass import api
from fxpass.report import drawing
from fxpass.report.kept_nodes import kept, without_tensors
from fxpass.report.lazy import Lazy
from fxpass.report.names import user_name

F = nn.functional


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k_cache", torch.zeros(2, 8, 4))

    def forward(self, x: Tensor, start: int) -> Tensor:
        self.k_cache[:, start : start + 1] = x
        rows = self.k_cache[:, : start + 1]
        return F.scaled_dot_product_attention(x, rows, rows)


class Two(nn.Module):
    """Two layers, and so two masks that are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, x: Tensor, start: int) -> Tensor:
        for layer in self.layers:
            x = layer(x, start)
        return x


def counted(keys: Tensor, used: list[Tensor], x: Tensor) -> Tensor:
    end = int(used[0][0]) + 1
    keys[:, end - 1] = x
    used[0].add_(1)
    return keys[:, :end].amax(1)


def grown(keys: Tensor, x: Tensor, start: int) -> Tensor:
    x *= 2
    return keys[:, :start].mT @ keys[:, :start] * x.sum(0)


def joined(past: dict[str, Tensor], x: Tensor) -> Tensor:
    past["k"] = torch.cat([past["k"], x], 1)
    return F.scaled_dot_product_attention(x, past["k"], past["k"])


def two() -> fxpass.Report:
    model = Two()
    return last(model, [(torch.ones(2, 1, 4), start) for start in (1, 2, 3)])


def of_counted() -> fxpass.Report:
    keys, used = torch.zeros(2, 8), [torch.tensor([1])]
    return last(counted, [(keys, used, torch.ones(2))] * 3)


def of_grown() -> fxpass.Report:
    return last(grown, [(torch.zeros(2, 8, 4), torch.ones(start, 4), start) for start in (3, 4, 5)])


@torch.no_grad()
def last(fn: Callable[..., Any], calls: list[Any]) -> fxpass.Report:
    compiled = torch.compile(fn, backend="kvfix", options={"compiler": "eager", "verify": 0})
    for call in calls:
        compiled(*call)
    return fxpass.reports()[-1]


def test_layers_of_a_module() -> None:
    report = two()
    assert_expected_inline(report.before, """\
layers.0.k_cache: f32[2, 8, 4] = input
start: pos = input
x: f32[2, 1, 4] = input
layers.1.k_cache: f32[2, 8, 4] = input
# test_readable.py:35  self.k_cache[:, start : start + 1] = x
add: pos + 1 = add(start, 1)
slice_1: f32[2, 1, 4] = aten.slice(layers.0.k_cache, 1, start, add)
copy_: f32[2, 1, 4] = aten.copy_(slice_1, x)
# test_readable.py:36  rows = self.k_cache[:, : start + 1]
slice_2: f32[2, pos + 1, 4] = aten.slice(layers.0.k_cache, 1, 0, add)
# test_readable.py:37  return F.scaled_dot_product_attention(x, rows, rows)
scaled_dot_product_attention: f32[2, 1, 4] = aten.scaled_dot_product_attention(x, slice_2, slice_2)
# test_readable.py:35  self.k_cache[:, start : start + 1] = x
slice_3: f32[2, 1, 4] = aten.slice(layers.1.k_cache, 1, start, add)
copy__1: f32[2, 1, 4] = aten.copy_(slice_3, scaled_dot_product_attention)
# test_readable.py:36  rows = self.k_cache[:, : start + 1]
slice_4: f32[2, pos + 1, 4] = aten.slice(layers.1.k_cache, 1, 0, add)
# test_readable.py:37  return F.scaled_dot_product_attention(x, rows, rows)
scaled_dot_product_attention_1: f32[2, 1, 4] = aten.scaled_dot_product_attention(scaled_dot_product_attention, slice_4, slice_4)
return (scaled_dot_product_attention_1)""")
    assert_expected_inline(report.after, """\
layers.0.k_cache: f32[2, 8, 4] = input
start: pos = input
x: f32[2, 1, 4] = input
layers.1.k_cache: f32[2, 8, 4] = input
full_default: i64[] = aten.full([], start, dtype=torch.int64, device=cpu)
add_tensor_1: i64[] = aten.add(full_default, 1)
# test_readable.py:35  self.k_cache[:, start : start + 1] = x
arange_default: i64[1] = aten.arange(1, device=cpu)
add_tensor: i64[1] = aten.add(arange_default, full_default)
index_copy__default: f32[2, 8, 4] = aten.index_copy_(layers.0.k_cache, 1, add_tensor, x)
# test_readable.py:37  return F.scaled_dot_product_attention(x, rows, rows)
scalar_tensor_default: f32[] = aten.scalar_tensor(0, dtype=torch.float32, device=cpu)
arange_default_1: i64[8] = aten.arange(8, device=cpu)
lt_tensor: b8[8] = aten.lt(arange_default_1, add_tensor_1)
unsqueeze_default: b8[8, 1] = aten.unsqueeze(lt_tensor, -1)
where_self: f32[2, 8, 4] = aten.where.self(unsqueeze_default, layers.0.k_cache, scalar_tensor_default)
where_self_1: f32[2, 8, 4] = aten.where.self(unsqueeze_default, where_self, scalar_tensor_default)
unsqueeze_default_2: b8[1, 8] = aten.unsqueeze(lt_tensor, 0)
scaled_dot_product_attention_default: f32[2, 1, 4] = aten.scaled_dot_product_attention(x, where_self_1, where_self_1, attn_mask=unsqueeze_default_2)
# test_readable.py:35  self.k_cache[:, start : start + 1] = x
index_copy__default_1: f32[2, 8, 4] = aten.index_copy_(layers.1.k_cache, 1, add_tensor, scaled_dot_product_attention_default)
# test_readable.py:37  return F.scaled_dot_product_attention(x, rows, rows)
where_self_2: f32[2, 8, 4] = aten.where.self(unsqueeze_default, layers.1.k_cache, scalar_tensor_default)
where_self_3: f32[2, 8, 4] = aten.where.self(unsqueeze_default, where_self_2, scalar_tensor_default)
scaled_dot_product_attention_default_1: f32[2, 1, 4] = aten.scaled_dot_product_attention(scaled_dot_product_attention_default, where_self_3, where_self_3, attn_mask=unsqueeze_default_2)
return (scaled_dot_product_attention_default_1)""")


def test_an_index_in_a_list() -> None:
    report = of_counted()
    assert_expected_inline(report.diff(), """\
--- before
+++ after
@@ -4,13 +4,23 @@
 keys: f32[2, capacity] = input
 x: f32[2] = input
-# test_readable.py:54  end = int(used[0][0]) + 1
-add: pos + 1 = add(used[0][0], 1)
+clone_default: i64[1] = aten.clone(used[0])
+reshape_default: i64[1] = aten.reshape(clone_default, [-1])
+to_dtype: i64[1] = aten.to.dtype(reshape_default, torch.int64)
+select_int: i64[] = aten.select(to_dtype, 0, 0)
+add_tensor_1: i64[] = aten.add(select_int, 1)
 # test_readable.py:55  keys[:, end - 1] = x
-select: f32[2] = aten.select(keys, 1, used[0][0])
-copy_: f32[2] = aten.copy_(select, x)
+arange_default: i64[1] = aten.arange(1, device=cpu)
+add_tensor: i64[1] = aten.add(arange_default, select_int)
+unsqueeze_default: f32[2, 1] = aten.unsqueeze(x, 1)
+expand_default: f32[2, 1] = aten.expand(unsqueeze_default, [2, 1])
+index_copy__default: f32[2, capacity] = aten.index_copy_(keys, 1, add_tensor, expand_default)
 # test_readable.py:56  used[0].add_(1)
 add_: i64[1] = aten.add_(used[0], 1)
 # test_readable.py:57  return keys[:, :end].amax(1)
-slice_1: f32[2, pos + 1] = aten.slice(keys, 1, 0, add)
-amax: f32[2] = aten.amax(slice_1, [1])
+scalar_tensor_default: f32[] = aten.scalar_tensor(-inf, dtype=torch.float32, device=cpu)
+sym_size_int: capacity = aten.sym_size(keys, 1)
+arange_default_1: i64[capacity] = aten.arange(sym_size_int, device=cpu)
+lt_tensor: b8[capacity] = aten.lt(arange_default_1, add_tensor_1)
+where_self: f32[2, capacity] = aten.where.self(lt_tensor, keys, scalar_tensor_default)
+amax: f32[2] = aten.amax(where_self, [1])
 return (amax)""")


def test_a_growing_series_that_is_written_stays_outside() -> None:
    report = of_grown()
    assert_expected_inline(report.core, """\
keys: f32[2, capacity, 4] = input
full_default: i64[] = input
sum_1: f32[4] = input
# test_readable.py:62  return keys[:, :start].mT @ keys[:, :start] * x.sum(0)
m_t: f32[2, 4, capacity] = aten.mT(keys)
scalar_tensor_default: f32[] = aten.scalar_tensor(0, dtype=torch.float32, device=cpu)
sym_size_int: capacity = aten.sym_size(keys, 1)
arange_default: i64[capacity] = aten.arange(sym_size_int, device=cpu)
lt_tensor: b8[capacity] = aten.lt(arange_default, full_default)
where_self: f32[2, 4, capacity] = aten.where.self(lt_tensor, m_t, scalar_tensor_default)
unsqueeze_default: b8[capacity, 1] = aten.unsqueeze(lt_tensor, -1)
where_self_1: f32[2, capacity, 4] = aten.where.self(unsqueeze_default, keys, scalar_tensor_default)
matmul: f32[2, 4, 4] = aten.matmul(where_self, where_self_1)
mul: f32[2, 4, 4] = aten.mul(matmul, sum_1)
return (mul)""")


def test_another_process_prints_the_same() -> None:
    command = "import sys; sys.path[:0] = ['tests', 'tests/report']; import test_readable as t; print(t.two().after, end='')"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == two().after


@pytest.mark.parametrize(
    "source, name",
    [
        ("L['self']._modules['layers']._modules['3']._buffers['k_cache']", "layers.3.k_cache"),
        ("L['used'][0]", "used[0]"),
        ("L['cache'].size()[1]", "cache.size()[1]"),
        ("__load_module('fxpass.index_tensors.mirror').read(L['self']._buffers['length'], 2) == 1", "length[2] == 1"),
        ("L['m'].__dict__['_modules']['layer']._buffers['k']", "m.layer.k"),
        ("buffer(L['past']['k'])", "buffer(past['k'])"),
        ("L['itself'].rows", "itself.rows"),
        ("G['TABLE']", "TABLE"),
        ("x", "x"),
    ],
)
def test_names_are_the_users(source: str, name: str) -> None:
    assert user_name(source) == name


def test_what_grows_and_its_buffer_are_called_by_their_source() -> None:
    """A buffer is that of an input, its size a capacity, and the size of what grows a length."""
    past = {"k": torch.zeros(2, 3, 4)}
    report = last(joined, [(past, torch.ones(2, 1, 4))] * 4)
    assert_expected_inline(report.core, """\
numbers: i64[1] = input
buffer(past['k']): f32[2, capacity, 4] = input
x: f32[2, 1, 4] = input
select_int: i64[] = aten.select(numbers, 0, 0)
add_tensor_1: i64[] = aten.add(select_int, 1)
# test_readable.py:66  past["k"] = torch.cat([past["k"], x], 1)
arange_default: i64[1] = aten.arange(1, device=cpu)
add_tensor: i64[1] = aten.add(arange_default, select_int)
index_copy__default: f32[2, capacity, 4] = aten.index_copy_(buffer(past['k']), 1, add_tensor, x)
# test_readable.py:67  return F.scaled_dot_product_attention(x, past["k"], past["k"])
scalar_tensor_default: f32[] = aten.scalar_tensor(0, dtype=torch.float32, device=cpu)
sym_size_int_1: capacity = aten.sym_size(buffer(past['k']), 1)
arange_default_1: i64[capacity] = aten.arange(sym_size_int_1, device=cpu)
lt_tensor: b8[capacity] = aten.lt(arange_default_1, add_tensor_1)
unsqueeze_default: b8[capacity, 1] = aten.unsqueeze(lt_tensor, -1)
where_self: f32[2, capacity, 4] = aten.where.self(unsqueeze_default, buffer(past['k']), scalar_tensor_default)
where_self_1: f32[2, capacity, 4] = aten.where.self(unsqueeze_default, where_self, scalar_tensor_default)
unsqueeze_default_2: b8[1, capacity] = aten.unsqueeze(lt_tensor, 0)
scaled_dot_product_attention_default: f32[2, 1, 4] = aten.scaled_dot_product_attention(x, where_self_1, where_self_1, attn_mask=unsqueeze_default_2)
return (scaled_dot_product_attention_default)""")
    made = [(site.buffer, site.chain[0].partition(" = ")[0]) for site in report.sites]
    assert made == [("buffer(past['k'])", "past['k'].size(1)")] * 2
    assert "pos" not in report.before and not re.search(r"\bs\d", report.before + report.after)


def test_a_guard_that_is_found_later_does_not_change_a_name() -> None:
    """Two sizes that are found equal while the graph is rewritten are one, before it, too."""
    k, v = torch.zeros(2, 8, 4), torch.zeros(2, 9, 4)

    def step(k: Tensor, v: Tensor, p: int) -> Tensor:
        return F.scaled_dot_product_attention(v[:, :1], k[:, :p], v[:, :p])

    report = last(step, [(k, v, 3), (k, v, 4), (torch.zeros(2, 10, 4), torch.zeros(2, 10, 4), 5)])
    assert not re.search(r"\bs\d", report.before + report.after), report.before


def test_a_name_of_the_users_is_no_symbol() -> None:
    """Whatever a variable is called, its line and an input are shown as they are written."""

    def step(k: Tensor, s0: int) -> Tensor:
        s1 = s0 + 1
        return k[:, :s1].sum(1)

    report = last(step, [(torch.zeros(2, 8, 4), p) for p in (3, 4)])
    assert "s0: pos = input" in report.before and "return k[:, :s1].sum(1)" in report.before


def test_a_window_is_called_so_and_its_size_is_asked_for_once() -> None:
    """A cache of more rows than are always read (`rewriting.buffers.windows`), of which two reads share a window."""

    def step(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
        return F.scaled_dot_product_attention(x, k[:, :p], v[:, :p])

    keys, values = torch.zeros(2, 128, 4), torch.zeros(2, 128, 4)
    report = last(step, [(keys, values, torch.ones(2, 1, 4), p) for p in (3, 4, 5)])
    assert "window" in report.kinds.values() and report.after.count(": window = aten.sym_size(") == 1
    assert report.after.count("f32[2, window, 4] = aten.slice(") == 2 and "window" not in report.before


def test_a_graph_is_drawn_when_somebody_looks() -> None:
    """What is kept until then holds neither the graph nor a tensor."""
    with mock.patch.object(drawing, "drawn", side_effect=drawing.drawn) as asked:
        report = two()
        assert asked.call_count == 0
        assert report.core and report.before == report.before and asked.call_count == 2


def test_what_is_kept_for_it_holds_neither_the_graph_nor_a_value() -> None:
    graphs: list[weakref.ref[fx.Graph]] = []

    def keep(graph: fx.Graph) -> Any:
        graphs.append(weakref.ref(graph))
        assert not any(isinstance(node.value, (Tensor, torch.SymInt)) for node in without_tensors(kept(graph)))
        return kept(graph)

    with mock.patch.object(api, "kept", side_effect=keep):
        of_counted()
    reports = fxpass.reports()
    for report in reports:
        report.script = Lazy(str)  # it keeps the graph as Dynamo gave it
    torch.compiler.reset()
    gc.collect()
    assert len(graphs) == 4 and not any(graph() is not None for graph in graphs)
    assert all("aten.amax(" in report.after for report in reports)


def test_lines_are_the_users() -> None:
    """Not those of torch's own Python code; and what is written to a buffer keeps its own."""

    def step(past: dict[str, Tensor], x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1)
        past["k"] = torch.cat([past["k"], x], 1)
        return past["k"].sum(1)

    report = last(step, [({"k": torch.zeros(2, length, 4)}, torch.ones(2, 1, 4)) for length in (3, 4, 5)])
    said = {name: node for name, node in report.graph_after.nodes(data=True) if node["source"]}
    assert len(said) >= 5 and all("test_readable.py" in node["source"] for node in said.values())
    assert {node["code"] for node in said.values() if node["op"] == "aten.div"} == {"x = F.normalize(x, dim=-1)"}
    assert "past[" in said["index_copy__default"]["code"]
