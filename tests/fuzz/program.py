"""A program: the grammar put together, from a seed to source text and the calls to make.

``Cache(b)`` holds the buffers for a batch of ``b``, ``seek(c, p)`` puts its positions at ``p``, ``rows(n, b)`` draws a
step's new rows, ``given(p, n)`` makes the further arguments, and ``step(c, x, ...)`` is what is compiled.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Mapping

from . import attention, consumers, driving, numbers, origins, reads, stores, structures, writes
from .choices import Choices
from .sketch import LAYOUTS, Sketch, Val, cut

TEXT = """\
import math
import torch
from operator import not_
from torch.nn.functional import scaled_dot_product_attention as sdpa

S = {capacity}

class Cache({base}):
    def __init__(c, b, new):
        super().__init__()
{state}

def seek(c, p):
{seek}

def rows(n, b):
    return torch.randn(({shape}), dtype=torch.{floats})

def given(p, n):
    return ({given})

def put(buf, new, s, e):
    buf[s:e] = new
    return buf[:e]

def step({arguments}):
{body}
"""


@dataclasses.dataclass
class Program:
    """Source text, the events to run, and the choices that it was made of; ``takes`` are attributes handed in one by one.

    Small caches are read through windows of a multiple of ``windows`` rows, and in full where that is 0.
    """

    seed: int
    text: str
    events: list[driving.Event]
    takes: list[str] | None
    dirt: str
    recorded: bool
    windows: int
    made: dict[str, int]


def generate(seed: int, given: Mapping[str, int] | None = None) -> Program:
    """The program of ``seed``, with the choices in ``given`` in the place of the seed's own."""
    pick = Choices(seed, given)
    layout = pick.weighed("layout", LAYOUTS)
    sizes = {d: pick.pick(f"size.{d}", (2, 3, 1, 4), (4, 2, 1, 1)) for d in "HD"}
    sk = Sketch(pick, layout, sizes, pick.pick("capacity", (8, 6, 12), (3, 1, 1)))
    store = stores.store(sk)
    sk.body.append(f"n = x.shape[{layout.index('T')}]")
    _layers(sk, store)
    numbers.scalars(sk)
    structures.structure(sk)
    sk.body += sk.after
    return _written(sk, store)


def _layers(sk: Sketch, store: stores.Store) -> None:
    pick, lay = sk.choices, sk.layout
    layers = pick.pick("layers", (1, 2, 3), (8, 2.5, 0.3))
    held = pick.weighed("held", {"apart": 6, "packed": 2, "alias": 1.5, "list": 1, "packed_last": 0.5})
    starts = origins.origin(sk, layers)
    bounds_at_once = pick.chance("starts.at_once", 0.3)
    if bounds_at_once:
        sk.body += list(itertools.chain.from_iterable(starts))
        if pick.chance("moves.early", 0.3):
            sk.body, sk.after = sk.body + sk.after, []
    for i, lines in enumerate(starts):
        if not bounds_at_once:
            sk.body += lines
        if i == 0:
            numbers.control(sk)
        _layer(sk, store, i, layers, held, lay)


def _layer(sk: Sketch, store: stores.Store, i: int, layers: int, held: str, lay: str) -> None:
    pick, key = sk.choices, f"layer{i}"
    bufs = _buffers(sk, store, i, layers, held)
    first = pick.chance(f"{key}.read_first", 0.1)
    before = []
    if first:
        parts = [reads.read(sk, f"{key}.{name}", buf, i) for name, (buf, _) in zip("kv"[: len(bufs)], bufs, strict=True)]
        before = [part.but(sk.let(part.code, "r")) for part in parts]
    attends = pick.chance(f"{key}.attends", 0.35)
    once = held == "alias" and pick.chance("alias.once", 0.5)
    for name, (buf, attribute) in zip("kv"[: 1 if once else len(bufs)], bufs[:1] if once else bufs, strict=True):
        if name == "v" and not attends and not pick.chance(f"{key}.writes_v", 0.4):
            continue
        rows = "x" if i == 0 and name == "k" else f"(x * {i + 2})" if name == "k" else f"(x - {i + 1})"
        writes.write(sk, f"{key}.{name}.write", buf, attribute, rows, i, store)
        writes.extra(sk, f"{key}.{name}.write", buf, i, store)
    if attends:
        form = pick.chance(f"{key}.other", 0.3)
        parts = (reads.read(sk, f"{key}.k", buf, i) if form else _prefix(sk, buf, i) for buf, _ in bufs)
        k, v = (store.read(sk, part) for part in parts)
        if "T" in k.layout and "T" in v.layout:
            attention.attend(sk, f"{key}.attention", "x", k, v, i, store.floats)
    else:
        if pick.chance(f"{key}.gives_rows", 0.06):
            sk.outs.append(sk.let(f"{bufs[0][0]}[{cut(lay, f's{i}:e{i}')}]", "o"))
        k, v = before or (reads.read(sk, f"{key}.{n}", buf, i) for n, (buf, _) in zip("kv"[: len(bufs)], bufs, strict=True))
        k = store.read(sk, k)
        consumers.consume(sk, f"{key}.k", k, "x")
        if pick.chance(f"{key}.reads_v", 0.4) or before and len(bufs) > 1:
            v = store.read(sk, v)
            if pick.chance(f"{key}.paired", 0.4):
                consumers.pair(sk, f"{key}.kv", k, v)
            else:
                consumers.consume(sk, f"{key}.v", v, "x")


def _prefix(sk: Sketch, buf: str, i: int) -> Val:
    return Val(f"{buf}[{cut(sk.layout, f':e{i}')}]", sk.layout, f"e{i}")


def _buffers(sk: Sketch, store: stores.Store, i: int, layers: int, held: str) -> list[tuple[str, str]]:
    """Keys and values of layer ``i``: the variable that holds each, and the attribute that is it as a whole, or nothing."""
    shape, dtype = sk.shape(sk.layout, "S"), f"torch.{store.dtype}"
    if held == "list":
        sk.keep("c.kv = [" + ", ".join([f"new(({shape},), {dtype})"] * 2 * layers) + "]")
        sk.assigns = True
        return [(f"c.kv[{2 * i + j}]", f"c.kv[{2 * i + j}]") for j in range(2)]
    if held == "packed":
        sk.keep(f"c.kv = new(({2 * layers}, {shape}), {dtype})")
        return [(sk.let(f"c.kv[{2 * i + j}]", "b"), "") for j in range(2)]
    if held == "packed_last":
        sk.keep(f"c.kv = new(({shape}, {2 * layers}), {dtype})")
        return [(sk.let(f"c.kv[..., {2 * i + j}]", "b"), "") for j in range(2)]
    sk.keep(f"c.k{i} = new(({shape},), {dtype})")
    sk.keep(f"c.v{i} = " + (f"c.k{i}" if held == "alias" else f"new(({shape},), {dtype})"))
    return [(f"c.k{i}", f"c.k{i}"), (f"c.v{i}", f"c.v{i}")]


def _written(sk: Sketch, store: stores.Store) -> Program:
    pick = sk.choices
    names = list(dict.fromkeys(re.findall(r"\bc\.(\w+)(?:,| =)", "\n".join(sk.state))))
    holder = pick.weighed("holder", {"object": 4, "arguments": 2, "module": 2, "hooked": 1})
    takes = names if holder == "arguments" and not sk.assigns else None
    code = "\n".join([*sk.body, "return " + "".join(f"{o}, " for o in sk.outs)])
    if takes is not None:
        code = re.sub(r"\bc\.(\w+)", r"\1", code)
    elif holder in ("module", "hooked"):
        if holder == "hooked":
            sk.state += ["c.register_forward_pre_hook(before)", "c.register_forward_hook(behind)"]
        tensor = re.compile(r"^c\.(\w+) = (new\(.*|torch\..*)$")
        sk.state = [tensor.sub(r"c.register_buffer('\1', \2)", line) for line in sk.state]
    text = TEXT.format(
        capacity=sk.capacity,
        base="torch.nn.Module" if holder in ("module", "hooked") else "object",
        state=textwrap.indent("\n".join(sk.state), " " * 8),
        seek=textwrap.indent("\n".join(sk.seek or ["pass"]), " " * 4),
        shape=sk.shape(sk.layout, "n") + ",",
        floats=store.floats,
        given="".join(f"{code}, " for code in sk.given.values()),
        arguments=", ".join([*(["c"] if takes is None else takes), "x", *sk.given]),
        body=textwrap.indent(code, " " * 4),
    )
    if holder == "hooked":
        text = _hooked(text, ", ".join(["x", *sk.given]), "p" in sk.given)
    seeks = {"c.idx.fill_(": 6, "c.idx.data.fill_(": 1, "c.idx.numpy().fill(": 1}
    text = text.replace("c.idx.fill_(", pick.weighed("seek", seeks))
    dirt = pick.weighed("dirt", {"zeros": 3, "nan": 4, "random": 3, "inf": 0.5, "large": 0.5})
    if sk.accumulates and dirt != "zeros":
        dirt = "random"  # what is valid would be as large, or NaN, and its softmax a matter of rounding
    events, recorded = driving.events(pick, sk.capacity), pick.chance("recorded", 0.1)
    windows = pick.pick("windows", (0, 2, 3), (3, 1, 1))
    return Program(pick.seed, text, events, takes, dirt, recorded, windows, pick.made)


def _hooked(text: str, arguments: str, is_given_p: bool) -> str:
    """``text`` with the step as the cache's own ``forward``, between two hooks; a position that is handed in goes into one."""
    last = "inputs[1]" if is_given_p else "inputs[0].sum()"
    return text.replace("def step(", "def work(") + f"""
def before(c, inputs):
    return inputs[0] * 2, *inputs[1:]

def behind(c, inputs, results):
    return *results, inputs[0] + {last}

def step(c, {arguments}):
    return c({arguments})

Cache.forward = work
"""
