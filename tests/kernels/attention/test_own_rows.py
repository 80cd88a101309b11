"""Attention that computes and writes its own row gives what the graph gives that it stands for, or the graph stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import traced
from torch import fx
from torch.nn.functional import linear

import fxpass.kernels.attention.few_queries
import fxpass.kernels.writes.write_rows  # noqa: F401  (both register operators)
from fxpass.graph import aliases
from fxpass.kernels.attention import own_rows
from fxpass.kernels.for_inductor import pairs
from fxpass.kernels.launches import limits, memory_writes, recorded_inputs
from fxpass.kernels.products import few_rows

OPS = torch.ops.kvfix
NAN = float("nan")
Tensors = dict[str, torch.Tensor]
BATCH, HEADS, KEY_HEADS, DIM = 2, 4, 2, 16


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton's interpreter runs the kernels."""
    monkeypatch.setattr(limits, "DEVICES", {"cpu", "cuda"})


def given(size: int = 40, dtype: torch.dtype = torch.float32, k: int = 48, batch: int = BATCH, start: int = 17) -> Tensors:
    """What comes after the new row is NaN."""
    outputs = (HEADS + 2 * KEY_HEADS) * DIM
    t = {"x": torch.randn(batch, 1, k), "w": torch.randn(outputs, k) / k**0.5, "bias": torch.randn(outputs)}
    t |= {"cos": torch.randn(1, DIM), "sin": torch.randn(1, DIM), "gain": torch.rand(DIM) + 0.5}
    t |= {"ks": torch.randn(3, batch, KEY_HEADS, size, DIM), "vs": torch.randn(3, batch, KEY_HEADS, size, DIM)}
    t = {name: value.to(dtype) for name, value in t.items()}
    t["ks"][..., start:, :], t["vs"][..., start:, :] = NAN, NAN
    t["columns"] = torch.randn(DIM, 2).t()
    return {**t, "slots": torch.tensor([start]), "length": torch.tensor(start + 1)}


def split(t: Tensors) -> list[torch.Tensor]:
    """Queries, keys and values: (batch, heads, 1, dim)."""
    y = linear(t["x"], t["w"], t["bias"])
    parts = y.split([HEADS * DIM, KEY_HEADS * DIM, KEY_HEADS * DIM], -1)
    return [p.view(p.shape[0], 1, -1, DIM).transpose(1, 2) for p in parts]


def attend(t: Tensors, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **other: Any) -> torch.Tensor:
    """Of layer 1. ``other`` takes the place of arguments."""
    OPS.write_rows(t["ks"][1], 2, t["slots"], k)
    OPS.write_rows(t["vs"][1], 2, other.get("slots", t["slots"]), v)
    between = other.get("between")
    if between is not None:
        between(t)
    more = (t["length"], other.get("mask"), other.get("causal", False), 0.3)
    return OPS.decode_attention(q, other.get("keys", t["ks"][1]), t["vs"][1], *more, other.get("nans", False))


def plain(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t))


def interleaved(t: Tensors) -> torch.Tensor:
    def turn(x: torch.Tensor) -> torch.Tensor:
        a, b = x.reshape(*x.shape[:-1], DIM // 2, 2).unbind(-1)
        return x * t["cos"] + torch.stack([-b, a], -1).reshape(x.shape) * t["sin"]

    q, k, v = split(t)
    return attend(t, turn(q), turn(k), v)


def half(t: Tensors, width: int = DIM) -> torch.Tensor:
    def turn(x: torch.Tensor) -> torch.Tensor:
        turned, rest = x[..., :width], x[..., width:]
        a, b = turned.chunk(2, -1)
        cos, sin = t["cos"][:, :width], t["sin"][:, :width]
        return torch.cat([turned * cos + torch.cat((-b, a), -1) * sin, rest], -1)

    q, k, v = split(t)
    return attend(t, turn(q), turn(k), v)


def partial(t: Tensors) -> torch.Tensor:
    return half(t, 8)


def rounded(t: Tensors) -> torch.Tensor:
    """In another dtype in between, and back."""
    q, k, v = split(t)
    q, k = ((x.float() * t["cos"].float()).type_as(x) * 2 for x in (q, k))
    return attend(t, q, k, v)


def of_pairs(t: Tensors) -> torch.Tensor:
    angles = torch.view_as_complex(torch.stack([t["cos"][0, :8], t["sin"][0, :8]], -1))

    def turn(x: torch.Tensor) -> torch.Tensor:
        both = torch.view_as_complex(x.transpose(1, 2).contiguous().reshape(*x.transpose(1, 2).shape[:-1], -1, 2))
        return torch.view_as_real(both * angles.view(1, 1, 1, -1)).flatten(3).transpose(1, 2)

    q, k, v = split(t)
    return attend(t, turn(q), turn(k), v)


def heads_last(t: Tensors) -> torch.Tensor:
    """Of a projection whose heads vary fastest, with a part taken by its number."""
    y = linear(t["x"], t["w"][: 3 * KEY_HEADS * DIM]).reshape(-1, 1, 3, DIM, KEY_HEADS).permute(2, 0, 4, 1, 3)
    return attend(t, y.select(0, 0) * t["gain"].unsqueeze(0), y.select(0, -2), y[2])


def joined_heads(t: Tensors) -> torch.Tensor:
    """Values whose heads are put one after the other."""
    q, k, v = split(t)
    return attend(t, q, k, torch.cat([v[:, 1:], v[:, :1] * 2], 1).expand(-1, KEY_HEADS, 1, DIM))


def transposed(t: Tensors) -> torch.Tensor:
    """A cache whose rows lie before its heads."""
    q, k, v = split(t)
    ks, vs = (t[name].view(3, t["x"].shape[0], -1, KEY_HEADS, DIM)[1] for name in ("ks", "vs"))
    OPS.write_rows(ks, 1, t["slots"], k.transpose(1, 2))
    OPS.write_rows(vs, 1, t["slots"], v.transpose(1, 2))
    return OPS.decode_attention(q, ks.transpose(1, 2), vs.permute(0, 2, 1, 3), t["length"], None, False, 0.3)


def masked(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t), mask=torch.arange(t["ks"].shape[3]).view(1, 1, 1, -1) % 3 != 1, nans=True)


def biased(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t), mask=torch.arange(t["ks"].shape[3]).view(1, -1) / 9)


JOINED: list[tuple[Callable[[Tensors], torch.Tensor], dict[str, Any]]] = [
    (plain, {}), (plain, {"batch": 1, "k": 700}), (interleaved, {}), (interleaved, {"size": 600, "start": 300}),
    (half, {"dtype": torch.float16}), (half, {"start": 0}), (partial, {}), (rounded, {"dtype": torch.float16}),
    (of_pairs, {}), (heads_last, {"size": 520, "start": 37}), (joined_heads, {"start": 39}), (masked, {}),
    (biased, {"size": 600, "start": 70}),
]  # fmt: skip


def run(fn: Callable[[Tensors], torch.Tensor], t: Tensors) -> list[fx.Node]:
    """The nodes of ``fn``'s graph of these kernels, once it gives and writes what ``fn`` does."""
    names, values = list(t), list(t.values())
    gm = traced(lambda *args: fn(dict(zip(names, args, strict=True))), values)
    theirs, ours = ([v.clone() for v in values] for _ in range(2))
    wanted = fn(dict(zip(names, theirs, strict=True)))
    few_rows.use_few_rows(gm.graph, memory_writes.MemoryWrites(gm.graph))
    pairs.use_pairs(gm.graph, memory_writes.MemoryWrites(gm.graph))
    own_rows.use_own_rows(gm.graph, memory_writes.MemoryWrites(gm.graph))
    aliases.remove_dead(gm.graph)
    gm.graph.lint()
    gm.recompile()
    near = {"rtol": 4e-3, "atol": 4e-3} if t["x"].dtype is torch.float16 else {"rtol": 2e-5, "atol": 2e-5}
    torch.testing.assert_close(gm(*ours), wanted, **near)
    torch.testing.assert_close(ours, theirs, equal_nan=True, **near)
    return [n for n in gm.graph.nodes if "attend" in str(n.target) or "attention" in str(n.target) or "write" in str(n.target)]


@pytest.mark.parametrize("fn, how", JOINED)
def test_a_row_is_computed_by_attention(fn: Callable[[Tensors], torch.Tensor], how: dict[str, Any]) -> None:
    (node,) = run(fn, given(**how))
    assert node.target is OPS.write_and_attend.default and node.kwargs == {"early": True}


def test_a_cache_whose_rows_come_first() -> None:
    t = given()
    for name in ("ks", "vs"):
        t[name].view(3, BATCH, -1, KEY_HEADS, DIM)[:, :, 17:] = NAN
        t[name].view(3, BATCH, -1, KEY_HEADS, DIM)[:, :, :17] = 1.5
    (node,) = run(transposed, t)
    assert node.target is OPS.write_and_attend.default


def two_layers(t: Tensors) -> torch.Tensor:
    """The first reads before the second writes, in the same memory."""
    q, k, v = split(t)
    OPS.write_rows(t["ks"][0], 2, t["slots"], v)
    OPS.write_rows(t["vs"][0], 2, t["slots"], k)
    first = OPS.decode_attention(q, t["ks"][0], t["vs"][0], t["length"], None, False, 0.3)
    return first + attend(t, q * 2, k, v)


def test_layers_of_one_memory_are_read_early() -> None:
    assert [n.kwargs["early"] for n in run(two_layers, given())] == [True, True]


def written_before(t: Tensors) -> torch.Tensor:
    t["ks"].select(0, 1).mul_(0.5)
    return plain(t)


def whole_written_before(t: Tensors) -> torch.Tensor:
    t["vs"].mul_(0.5)
    return plain(t)


@pytest.mark.parametrize("fn", [written_before, whole_written_before])
def test_what_is_written_before_is_not_read_early(fn: Callable[[Tensors], torch.Tensor]) -> None:
    assert [n.kwargs["early"] for n in run(fn, given()) if n.target is OPS.write_and_attend.default] == [False]


def other_slot(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t), slots=t["slots"] - 1)


def read_between(t: Tensors) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    return attend(t, *split(t), between=lambda t: seen.append(t["ks"][1, :, :, 0].sum())) + seen[0]


def written_between(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t), between=lambda t: t["vs"][1].mul_(2))


def leaf_written_between(t: Tensors) -> torch.Tensor:
    q, k, v = split(t)
    q, k = q * t["cos"], k * t["cos"]
    t["cos"].add_(1)
    return attend(t, q, k, v)


def other_layer(t: Tensors) -> torch.Tensor:
    return attend(t, *split(t), keys=t["ks"][0])


def normed(t: Tensors) -> torch.Tensor:
    """A mean of what the product gives has a kernel of its own anyway."""
    q, k, v = split(t)
    return attend(t, q / q.square().mean(-1, keepdim=True).sqrt(), k, v)


def of_a_tensor_that_is_not_dense(t: Tensors) -> torch.Tensor:
    q, k, v = split(t)
    return attend(t, q * t["columns"][:1], k, v)


def of_two_queries(t: Tensors) -> torch.Tensor:
    q, k, v = split(t)
    return attend(t, q.view(q.shape[0], KEY_HEADS, 2, DIM), k, v)


def of_two_slots(t: Tensors) -> torch.Tensor:
    q, k, v = split(t)
    slots = torch.cat([t["slots"] - 1, t["slots"]])
    OPS.write_rows(t["ks"][1], 2, slots, k.expand(-1, -1, 2, -1))
    OPS.write_rows(t["vs"][1], 2, slots, v.expand(-1, -1, 2, -1))
    return OPS.decode_attention(q, t["ks"][1], t["vs"][1], t["length"], None, False, 0.3)


def of_one_memory(t: Tensors) -> torch.Tensor:
    """Keys and values are halves of one tensor."""
    q, k, v = split(t)
    OPS.write_rows(t["ks"][1], 2, t["slots"], k)
    OPS.write_rows(t["ks"][2], 2, t["slots"], v)
    return OPS.decode_attention(q, t["ks"][1], t["ks"][2], t["length"], None, False, 0.3)


LEFT = [of_one_memory, other_slot, read_between, written_between, leaf_written_between, other_layer, normed,
        of_a_tensor_that_is_not_dense, of_two_queries, of_two_slots]  # fmt: skip


@pytest.mark.parametrize("fn", LEFT)
def test_what_is_left_as_it_is(fn: Callable[[Tensors], torch.Tensor]) -> None:
    t = given()
    for name in ("ks", "vs"):
        t[name][..., 17:, :] = 0.5
    assert OPS.write_and_attend.default not in [n.target for n in run(fn, t)]


@pytest.mark.parametrize("slot", [-1, 40, 2**40])
def test_a_row_that_the_cache_does_not_have_is_not_written(slot: int) -> None:
    t = given() | {"slots": torch.tensor([slot]), "length": torch.tensor(17)}
    assert [n.target for n in run(plain, t)] == [OPS.write_and_attend.default]


def test_what_lies_in_the_memory_of_an_input_of_a_recording() -> None:
    x, copy = torch.randn(3, 4), torch.randn(3, 4)
    with recorded_inputs.recording_of([x, 7, None]):
        assert recorded_inputs.is_input(x[1:]) and not recorded_inputs.is_input(copy)
    assert not recorded_inputs.is_input(x)
