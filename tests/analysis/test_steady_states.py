"""The steady state of each way to keep a cache is one static core: ragged batches, rollback, eviction, encoders, conditions."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

R, S, D = 4, 16, 8
Calls = Iterator[tuple[Any, ...]]


class Slots:
    """Keys, and how many of each row are valid."""

    def __init__(self, *lens: int) -> None:
        self.k, self.lens = torch.zeros(len(lens), 2 * S, D), torch.tensor(lens)


class Window:
    """Keys, and an int that counts."""

    def __init__(self, n: int = 0) -> None:
        self.k, self.n = torch.zeros(2, S, D), n


def name_of(value: Any) -> Any:
    return getattr(value, "__name__", None)


def same(mine: Any, eager: Any) -> None:
    """The state that the caller keeps is the same in both runs."""
    pairs = [(vars(mine)[name], value) for name, value in vars(eager).items()]
    for a, b in pairs:
        torch.testing.assert_close(a, b) if isinstance(b, Tensor) else None
        assert isinstance(b, Tensor) or a == b


def check(
    step: Callable[..., Tensor], state: Any, calls: Calls, graphs: int, compiler: str = "eager", moving: bool = True
) -> None:
    """``step(state, *call)``, eager beside compiled, for each of ``calls``; then one core, nothing refused or left outside.

    Where nothing is ``moving`` in the last call, its graph need not be cut into parts: on torch 2.13 the length of a full
    window is a constant there, and on 2.14 a symbol."""
    compiled, mine = torch.compile(step, backend="kvfix", options={"compiler": compiler}), copy.deepcopy(state)
    for edit, *call in calls:
        if edit is not None:
            edit(state)
            edit(mine)
        torch.testing.assert_close(compiled(mine, *call), step(state, *call))
        same(mine, state)
    report = fxpass.reports()[-1]
    assert not any(r.refused or r.unfit for r in fxpass.reports()) and not report.outside and not report.corrected
    assert report.parts or not moving
    assert not report.parts or [name for name, static, _ in report.parts if static] == ["core"], report.parts
    assert counters["stats"]["unique_graphs"] <= graphs and not counters["graph_break"]


# -- ragged and reused batches


def by_longest(c: Slots, x: Tensor) -> Tensor:
    c.k[torch.arange(R), c.lens] = x[:, 0]
    c.lens += 1
    m = int(c.lens.max())
    return sdpa(x, c.k[:, :m], c.k[:, :m], attn_mask=(torch.arange(m)[None] < c.lens[:, None])[:, None])


def by_list(c: Slots, x: Tensor) -> Tensor:
    m = max(c.lens.tolist()) + 1
    for row in range(R):
        c.k[row, c.lens[row]] = x[row, 0]
    c.lens += 1
    return sdpa(x, c.k[:, :m], c.k[:, :m], attn_mask=(torch.arange(m)[None] < c.lens[:, None])[:, None])


def row_by_row(c: Slots, x: Tensor) -> Tensor:
    out = []
    for row, n in enumerate(c.lens.tolist()):
        c.k[row, n : n + 1] = x[row]
        out.append(sdpa(x[row : row + 1], c.k[row : row + 1, : n + 1], c.k[row : row + 1, : n + 1]))
    c.lens += 1
    return torch.cat(out)


def scattered(c: Slots, x: Tensor) -> Tensor:
    c.k.scatter_(1, c.lens[:, None, None].expand(R, 1, D), x)
    c.lens.add_(1)
    m = c.lens.amax().item()
    return (x @ c.k[:, :m].mT).masked_fill(torch.arange(m) >= c.lens[:, None, None], -1e9).softmax(-1) @ c.k[:, :m]


def reused(row: int, length: int) -> Callable[[Slots], None]:
    def edit(c: Slots) -> None:
        c.lens[row] = length

    return edit


@torch.no_grad()
@pytest.mark.parametrize("lens", [(3, 5, 2, 4), (3, 3, 3, 3)], ids=["ragged", "alike"])
@pytest.mark.parametrize("step", [by_longest, by_list, row_by_row, scattered], ids=name_of)
def test_rows_of_their_own_lengths(step: Callable[..., Tensor], lens: tuple[int, ...]) -> None:
    edits = {4: reused(1, 2), 7: reused(3, 1)}
    check(step, Slots(*lens), ((edits.get(i), torch.rand(R, 1, D)) for i in range(11)), graphs=3)


def left_padded(c: Slots, x: Tensor, pad: Tensor) -> Tensor:
    start = int(c.lens[0])
    end = start + x.shape[1]
    c.k[:, start:end] = x
    c.lens += x.shape[1]
    seen = torch.arange(end)[None] >= pad[:, None] if (pad > 0).any() else torch.ones(R, end, dtype=torch.bool)
    return sdpa(x, c.k[:, :end], c.k[:, :end], attn_mask=seen[:, None])


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_padding_on_the_left(compiler: str) -> None:
    pad = torch.tensor([0, 1, 2, 3])
    check(left_padded, Slots(0, 0, 0, 0), ((None, torch.rand(R, n, D), pad) for n in (5, 1, 1, 1)), 2, compiler)


def front_rows(c: Slots, x: Tensor) -> Tensor:
    rows, start = x.shape[0], int(c.lens[0])
    end = start + x.shape[1]
    c.k[:rows, start:end] = x
    c.lens += x.shape[1]
    return sdpa(x, c.k[:rows, :end], c.k[:rows, :end])


@torch.no_grad()
def test_a_batch_smaller_than_the_cache() -> None:
    def calls() -> Calls:
        for rows in (2, 3, 4, 2):
            for i, n in enumerate((4, 1, 1, 1)):
                yield (lambda c: c.lens.zero_()) if not i else None, torch.rand(rows, n, D)

    check(front_rows, Slots(0, 0, 0, 0), calls(), graphs=4)


# -- rollback and eviction


def appended(c: Window, x: Tensor) -> Tensor:
    end = c.n + x.shape[1]
    c.k[:, c.n : end] = x
    c.n = end
    return sdpa(x, c.k[:, :end], c.k[:, :end])


def cropped(n: int) -> Callable[[Window], None]:
    def edit(c: Window) -> None:
        c.n -= n

    return edit


@torch.no_grad()
@pytest.mark.parametrize("backs", [(2, 3, 0, 1, 2), (1, 1, 1, 1, 1)], ids=["verified", "prefix"])
def test_what_is_verified_is_rolled_back(backs: tuple[int, ...]) -> None:
    calls = ((cropped(back) if back else None, torch.rand(2, 3, D)) for back in (0, *backs))
    check(appended, Window(1), calls, graphs=3)


def ring(c: Window, x: Tensor) -> Tensor:
    c.k[:, c.n % S] = x[:, 0]
    c.n += 1
    rows = min(c.n, S)
    return sdpa(x, c.k[:, :rows], c.k[:, :rows])


def sink_and_window(c: Window, x: Tensor) -> Tensor:
    at = c.n if c.n < S else 2 + (c.n - 2) % (S - 2)
    c.k[:, at : at + 1] = x
    c.n += 1
    rows = min(c.n, S)
    return sdpa(x, c.k[:, :rows], c.k[:, :rows])


def shifted(c: Window, x: Tensor) -> Tensor:
    if c.n == S:
        c.k[:, :-1] = c.k[:, 1:].clone()
        c.n -= 1
    c.k[:, c.n : c.n + 1] = x
    c.n += 1
    return sdpa(x, c.k[:, : c.n], c.k[:, : c.n])


def shifted_behind_a_sink(c: Window, x: Tensor) -> Tensor:
    if c.n == S:
        c.k[:, 2:7] = c.k[:, c.n - 5 : c.n].clone()
        c.n = 7
    c.k[:, c.n : c.n + 1] = x
    c.n += 1
    return sdpa(x, c.k[:, : c.n], c.k[:, : c.n])


def rolled(c: Window, x: Tensor) -> Tensor:
    if c.n == S:
        c.k.copy_(c.k.roll(-1, 1))
        c.n -= 1
    c.k[:, c.n : c.n + 1] = x
    c.n += 1
    return sdpa(x, c.k[:, : c.n], c.k[:, : c.n])


def joined(c: Window, x: Tensor) -> Tensor:
    c.k = torch.cat([c.k[:, 1:], x], 1)
    c.n += 1
    return sdpa(x, c.k, c.k)


def last_rows(c: Window, x: Tensor) -> Tensor:
    at = c.n % S
    c.k[:, at : at + 1] = x
    c.n += 1
    first = max(0, at + 1 - 5)
    return sdpa(x, c.k[:, first : at + 1], c.k[:, first : at + 1])


@torch.no_grad()
@pytest.mark.parametrize(
    "step", [ring, sink_and_window, shifted, shifted_behind_a_sink, rolled, joined, last_rows], ids=name_of
)
def test_a_window_that_is_full(step: Callable[..., Tensor]) -> None:
    calls: Calls = ((None, torch.rand(2, 1, D)) for _ in range(14))
    check(step, Window(S - 4), calls, graphs=4, moving=step not in (shifted, rolled))


# -- an encoder's output


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make, self.query = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.register_buffer("k", torch.zeros(1, S, D))
        self.register_buffer("v", torch.zeros(1, S, D))

    def forward(self, x: Tensor, start: int, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.make(x).chunk(3, -1)
        end = start + x.shape[1]
        self.k[:, start:end], self.v[:, start:end] = k, v
        x = x + sdpa(q, self.k[:, :end], self.v[:, :end])
        return x + sdpa(self.query(x), keys, values, attn_mask=mask)


class Decoder(nn.Module):
    """Two layers, with what they need of the encoder's output made by ``given``."""

    def __init__(self, given: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor | None]]) -> None:
        super().__init__()
        self.layers, self.cross = nn.ModuleList([Layer(), Layer()]), nn.Linear(D, 2 * D)
        self.given, self.kept = given, {}

    def forward(self, x: Tensor, start: int, encoded: Tensor | None) -> Tensor:
        keys, values, mask = self.given(self, encoded)
        for layer in self.layers:
            x = layer(x, start, keys, values, mask)
        return x


def projected(m: Any, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return *m.cross(encoded).chunk(2, -1), None


def as_it_is(m: Any, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return encoded, encoded, None


def masked(m: Any, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    return encoded, encoded, encoded[..., 0][:, None] > 0.1


def kept(m: Any, encoded: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    if encoded is not None:
        m.kept["k"], m.kept["v"] = (part.contiguous() for part in m.cross(encoded).chunk(2, -1))
    return m.kept["k"], m.kept["v"], None


@torch.no_grad()
@pytest.mark.parametrize(
    "given, dynamic", [(projected, None), (as_it_is, True), (masked, None), (kept, None), (kept, True)], ids=name_of
)
def test_an_encoder_of_another_length(given: Callable[..., Any], dynamic: bool | None) -> None:
    mine = Decoder(given).eval()
    eager = copy.deepcopy(mine)
    compiled = torch.compile(mine, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
    for length in (6, 8, 7, 11):
        encoded = torch.rand(1, length, D)
        for start, n in ((0, 3), (3, 1), (4, 1), (5, 1)):
            x = torch.rand(1, n, D)
            again = encoded if given is not kept or not start else None
            torch.testing.assert_close(compiled(x, start, again), eager(x, start, again))
    report = [r for r in fxpass.reports() if r.rewritten][-1]
    assert [name for name, _, _ in report.parts] == ["prologue", "core"] and not report.outside
    assert not any(r.refused for r in fxpass.reports()) and counters["stats"]["unique_graphs"] <= 4


@torch.no_grad()
def test_encoders_of_many_lengths_are_no_compilation_each() -> None:
    mine = Decoder(as_it_is).eval()
    eager = copy.deepcopy(mine)
    compiled = torch.compile(mine, backend="kvfix", options={"compiler": "eager"})
    with pytest.warns(fxpass.KvfixWarning, match="outside of the static core"):
        for length in range(4, 18):
            encoded = torch.rand(1, length, D)
            for start, n in ((0, 3), (3, 1), (4, 1)):
                x = torch.rand(1, n, D)
                torch.testing.assert_close(compiled(x, start, encoded), eager(x, start, encoded))
    report = fxpass.reports()[-1]
    assert report.corrected == ["L['encoded'].size()[1]"] and len(report.outside) > 1
    assert all("L['encoded'].size()[1] (growth)" in line for line in report.outside)


# -- conditions on small index tensors

CONDITIONS: dict[str, Callable[[Tensor], Any]] = {
    "any": lambda t: (t > 1).any(),
    "any of torch": lambda t: torch.any(t != 0),
    "all alike": lambda t: torch.all(t == t[0]),
    "all, read": lambda t: (t == t[0]).all().item(),
    "all, cast": lambda t: bool((t == 0).all()),
    "numel": lambda t: t.numel() > 2,
    "len": lambda t: len(t) > 2,
    "max": lambda t: t.max() > 2,
    "min": lambda t: int(t.min()) < 2,
    "max of Python": lambda t: max(t) > 2,
    "argmax": lambda t: t.argmax() == 2,
    "argmin": lambda t: int(torch.argmin(t)) > 0,
    "count": lambda t: t.count_nonzero() > 1,
    "count of truths": lambda t: (t > 1).count_nonzero().item() == 1,
    "chain": lambda t: t[0] == t[1] == t[2],
    "in a list": lambda t: 3 in t.tolist(),
    "in": lambda t: 2 in t,
    "not in a list": lambda t: 3 not in t[:2].tolist(),
    "a list alike": lambda t: t.tolist() == [1, 2, 3, 1],
    "place in a list": lambda t: 2 in t.tolist() and t.tolist().index(2) > 0,
    "count in a list": lambda t: t.tolist().count(2) > 1,
    "in a tuple": lambda t: int(t[1]) in (2, 4),
    "in a set": lambda t: 3 in set(t.tolist()),
    "in a dict": lambda t: int(t[2]) in {3: "a", 4: "b"},
    "any of a list": lambda t: any(v > 1 for v in t.tolist()),
    "all of a list": lambda t: all(t.tolist()),
    "sum": lambda t: t.sum() > 2,
    "not": lambda t: not t.any(),
    "min and max": lambda t: t.min() == t.max(),
    "neighbors": lambda t: (t[1:] >= t[:-1]).all(),
    "truths": lambda t: (~t.bool()).any(),
    "both": lambda t: (t > 0).any() and (t < 5).all(),
}

KEYS = ["in a set", "in a dict"]
"""A number that is looked up by its hash is a constant of the graph."""
ALIKE = ["all alike", "chain", "argmax", "count", "in a list", "min and max"]


@torch.no_grad()
@pytest.mark.parametrize(
    "name, start", [*((name, (0, 1, 2, 0)) for name in CONDITIONS), *((name, (1, 1, 1, 1)) for name in ALIKE)]
)
def test_a_condition_is_a_guard(name: str, start: tuple[int, ...]) -> None:
    def step(k: Tensor, x: Tensor, t: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        t += 1
        y = k[:, : p + 1].sum(1)
        return -y if CONDITIONS[name](t) else y

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    (mine, own), (eager, theirs) = ((torch.zeros(2, S, D), torch.tensor(start)) for _ in range(2))
    told = pytest.warns(fxpass.KvfixWarning, match="KV303") if name in KEYS else contextlib.nullcontext()
    with told:
        for p in range(2, 6):
            x = torch.rand(2, 1, D)
            torch.testing.assert_close(compiled(mine, x, own, p), step(eager, x, theirs, p))
            assert torch.equal(own, theirs)
    assert not counters["graph_break"] and not fxpass.reports()[-1].outside


# -- batches of other sizes


def first_length(c: Slots, x: Tensor) -> Tensor:
    start = int(c.lens[0])
    c.k[:, start : start + x.shape[1]] = x
    c.lens += x.shape[1]
    return c.k[:, : start + x.shape[1]].sum(1)


@torch.no_grad()
@pytest.mark.parametrize("step, dynamic", [(first_length, None), (first_length, True), (front_rows, None)], ids=name_of)
def test_batches_of_other_sizes(step: Callable[..., Tensor], dynamic: bool | None) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
    for rows in (2, 3, 5):
        mine, eager = Slots(*[0] * rows), Slots(*[0] * rows)
        for n in (4, 1, 1, 1):
            x = torch.rand(rows, n, D)
            torch.testing.assert_close(compiled(mine, x), step(eager, x))
            same(mine, eager)
    assert not counters["graph_break"] and not fxpass.reports()[-1].outside
    assert [name for name, static, _ in fxpass.reports()[-1].parts if static] == ["core"]
