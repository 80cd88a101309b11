"""Blocks that are compiled one by one, and find their caches by a number of their own: one pair of graphs for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass

BLOCKS = 3


class Layer:
    def __init__(self) -> None:
        self.k, self.n = torch.zeros(2, 8, 4), 0


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(2, 8, 4))


def caches(n: int = BLOCKS) -> list[Tensor]:
    return [torch.zeros(2, 8, 4) for _ in range(n)]


class Block(nn.Module):
    make: Any = staticmethod(caches)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.proj = nn.Linear(4, 4)

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return self.attend(caches[self.number], x, p)

    def attend(self, cache: Tensor, x: Tensor, p: int) -> Tensor:
        cache[:, p : p + 1] = self.proj(x)
        return cache[:, : p + 1].sum(1, keepdim=True)


class InTuple(Block):
    make = staticmethod(lambda: tuple(caches()))


class InDict(Block):
    make = staticmethod(lambda: dict(enumerate(caches())))


class InPairs(Block):
    make = staticmethod(lambda: [tuple(caches(2)) for _ in range(BLOCKS)])

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        k, v = caches[self.number]
        k[:, p : p + 1], v[:, p : p + 1] = self.proj(x), x
        return (k[:, : p + 1] * v[:, : p + 1]).sum(1, keepdim=True)


class InObjects(Block):
    """The item is an object that the block writes to."""

    make = staticmethod(lambda: [Layer() for _ in range(BLOCKS)])

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        layer = caches[self.number]
        layer.k[:, layer.n : layer.n + 1] = self.proj(x)
        layer.n += 1
        return layer.k[:, : layer.n].sum(1, keepdim=True)


class Grows(InObjects):
    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        layer = caches[self.number]
        layer.k = torch.cat([layer.k, self.proj(x)], 1)
        return layer.k.sum(1, keepdim=True)


class InModuleList(Block):
    make = staticmethod(lambda: nn.ModuleList([Held() for _ in range(BLOCKS)]))

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return self.attend(caches[self.number].k, x, p)


class Inner(Block):
    """The number belongs to a module inside of the block, and the list to an object."""

    make = staticmethod(lambda: {"all": caches()})

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.inner = Block(number)

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return self.inner(caches["all"], x, p)


def _state(value: Any) -> Any:
    if isinstance(value, dict):
        return [_state(v) for k, v in value.items() if k != "kinds"]
    if isinstance(value, (list, tuple, nn.ModuleList)):
        return [_state(v) for v in value]
    return [value.k, getattr(value, "n", 0)] if hasattr(value, "k") else value


@torch.no_grad()
def decode(block: type[Block], steps: int = 4) -> tuple[int, int]:
    """Decode with blocks compiled one by one, and compare each step with eager. The graphs, and the breaks."""
    torch.manual_seed(0)
    counters.clear()
    blocks = [block(i) for i in range(BLOCKS)]
    theirs, given = copy.deepcopy(blocks), block.make()
    compiled = [torch.compile(one, backend="kvfix", options={"compiler": "eager"}) for one in blocks]
    eager = copy.deepcopy(given)
    for p in range(1, steps):
        x = y = torch.rand(2, 1, 4)
        if p == steps - 1:
            given = copy.deepcopy(given)  # other tensors
        for ours, stock in zip(compiled, theirs, strict=True):
            x, y = ours(given, x, p), stock(eager, y, p)
            torch.testing.assert_close(x, y)
        torch.testing.assert_close(_state(given), _state(eager))
    assert [b.number for b in blocks] == [b.number for b in theirs]
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


@pytest.mark.parametrize("block", [Block, InTuple, InDict, InPairs, InObjects, Grows, InModuleList, Inner])
def test_blocks_that_find_their_cache_by_their_number_share_graphs(block: type[Block]) -> None:
    assert decode(block) == (2, 0)
    report = fxpass.reports()[-1]
    assert [name for name, static, _ in report.parts if static] == ["core"] and not report.outside


class Typed(Block):
    """What else is said by the number is a constant: one graph for each kind of block."""

    make = staticmethod(lambda: {"kinds": ["full", "half", "full"], "all": caches()})

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return super().forward(caches["all"], x, p) * (0.5 if caches["kinds"][self.number] == "half" else 1)


class First(Block):
    """The first block is the one whose item is also taken by a constant."""

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return super().forward(caches, x, p) + caches[0][:, : p + 1].sum()


class Short(Block):
    """The last block finds no cache."""

    make = staticmethod(lambda: caches(BLOCKS - 1))

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        try:
            return super().forward(caches, x, p)
        except IndexError:
            return -x


class Moves(InObjects):
    """The place moves with every call, after the object there has been written to."""

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        y = super().forward(caches, x, p)
        self.number = (self.number + 1) % BLOCKS
        return y


class Broken(Block):
    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        cache = caches[self.number]
        cache[:, p : p + 1] = x
        torch._dynamo.graph_break()
        return cache[:, : p + 1].sum(1, keepdim=True) + caches[self.number].sum()


@pytest.mark.parametrize("block, most", [(Typed, 4), (First, 4), (Short, 4), (Moves, 4), (Broken, 4)])
def test_what_differs_between_blocks_is_eagers(block: type[Block], most: int) -> None:
    assert decode(block)[0] <= most


class Counted:
    def __init__(self) -> None:
        self.k, self.n = caches(), 0


class FirstCounts(Block):
    """The first block moves a number that all of them use."""

    make = Counted

    def forward(self, cache: Any, x: Tensor, p: int) -> Tensor:
        if self.number == 0:
            cache.n += 1
        cache.k[self.number][:, cache.n - 1 : cache.n] = self.proj(x)
        return cache.k[self.number][:, : cache.n].sum(1, keepdim=True)


def test_a_number_that_one_block_moves_for_all_is_no_core_for_each_value(compiled_parts: list[str]) -> None:
    graphs, breaks = decode(FirstCounts, steps=7)
    assert graphs <= 4 and not breaks and compiled_parts.count("core") <= graphs


class Seen(Block):
    """Each block keeps how far it is in a list of ints, which it reads and writes by its number."""

    make = Counted
    numbers = staticmethod(lambda: [0] * BLOCKS)

    def forward(self, cache: Any, x: Tensor, p: int) -> Tensor:
        if cache.n == 0:
            cache.n = self.numbers()
        start = cache.n[self.number]
        cache.n[self.number] = start + 1
        cache.k[self.number][:, start : start + 1] = self.proj(x)
        return cache.k[self.number][:, : start + 1].sum(1, keepdim=True)


class SeenInDict(Seen):
    numbers = staticmethod(lambda: dict.fromkeys(range(BLOCKS), 0))


@pytest.mark.parametrize("block", [Seen, SeenInDict])
def test_an_int_at_a_place_of_a_list_is_a_number_that_moves(block: type[Block], compiled_parts: list[str]) -> None:
    """There are as many graphs as in stock, since the places in a list of which an item is replaced are constants."""
    graphs, breaks = decode(block, steps=7)
    assert graphs <= 2 * BLOCKS + 1 and not breaks and compiled_parts.count("core") <= graphs


class Replaced(Block):
    """An item is replaced before it is read: Dynamo follows the list, which has constant places."""

    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        caches[self.number] = caches[self.number] + x
        return caches[self.number].sum(1, keepdim=True)


class Compared(Block):
    def forward(self, caches: Any, x: Tensor, p: int) -> Tensor:
        return x * 2 if caches[self.number] is caches[1] else super().forward(caches, x, p)


@pytest.mark.parametrize("block", [Replaced, Compared])
def test_items_that_are_replaced_or_compared_are_eagers(block: type[Block]) -> None:
    decode(block)


@torch.no_grad()
def test_a_place_that_the_caller_says_has_one_graph() -> None:
    def f(caches: list[Tensor], x: Tensor, layer: int) -> Tensor:
        caches[2 * layer][:, 1:3] = x
        return caches[2 * layer].sum(1) + caches[2 * layer + 1].sum(1)

    compiled = torch.compile(f, backend="kvfix", options={"compiler": "eager"})
    mine, eager, x = caches(8), caches(8), torch.rand(2, 1, 4)
    for layer in (1, 2, 3, 0, 2):
        torch.testing.assert_close(compiled(mine, x * layer, layer), f(eager, x * layer, layer))
        torch.testing.assert_close(mine, eager)
    assert counters["stats"]["unique_graphs"] <= 3


class Pages:
    """A table of pages that the caller makes longer: page ``pages[n // 4]`` holds row ``n``."""

    def __init__(self, pages: Any) -> None:
        self.pages, self.k, self.n = pages, torch.zeros(9, 4, 8), 0

    def reserve(self) -> None:
        page = (self.n // 4 * 3 + 1) % 9
        if isinstance(self.pages, tuple):
            self.pages += (page,)
        elif isinstance(self.pages, dict):
            self.pages[self.n // 4] = page
        else:
            self.pages.append(page)


def paged(c: Pages, x: Tensor) -> Tensor:
    c.k[c.pages[c.n // 4], c.n % 4] = x
    c.n += 1
    return c.k.sum((0, 1))


def paged_and_counted(c: Pages, x: Tensor) -> Tensor:
    return paged(c, x) * len(c.pages)


@torch.no_grad()
@pytest.mark.parametrize("pages", [[], (), {}], ids=["list", "tuple", "dict"])
@pytest.mark.parametrize("step", [paged, paged_and_counted])
def test_a_table_of_pages_grows(step: Callable[[Pages, Tensor], Tensor], pages: Any) -> None:
    mine, eager = Pages(pages), Pages(copy.copy(pages))
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for n in range(30):
        if n % 4 == 0:
            mine.reserve()
            eager.reserve()
        x = torch.rand(8)
        torch.testing.assert_close(compiled(mine, x), step(eager, x))
        assert torch.equal(mine.k, eager.k)
    mine.n = eager.n = 99
    with pytest.raises((IndexError, KeyError)):
        step(eager, x)
    with pytest.raises((IndexError, KeyError)):
        compiled(mine, x)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] <= 5


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("write", [True, False])
def test_an_item_among_others_has_a_graph_of_its_own(write: bool) -> None:
    """Only where others are worked on as well; and no more graphs than in stock."""

    def step(pages: list[Tensor], x: Tensor, p: int) -> Tensor:
        page = pages[p // 2]
        page[:, p % 2] = x
        return torch.cat(pages, 1)[:, : p + 1].sum(1) if write else page.sum(1)

    graphs = []
    for options in ({"backend": "kvfix", "options": {"compiler": "eager"}}, {"backend": "eager"}):
        torch.compiler.reset()
        counters.clear()
        compiled, mine, eager = torch.compile(step, **options), *([torch.zeros(2, 2, 4) for _ in range(5)] for _ in range(2))
        for p in range(2, 10):
            x = torch.rand(2, 4)
            torch.testing.assert_close((compiled(mine, x, p), mine), (step(eager, x, p), eager))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] <= graphs[1] and (4 <= graphs[0] <= 6 if write else graphs[0] <= 3)
