"""Silence is a defect: where what is taken of a cache at a position is not in the static core, a warning says so, with the id
of a reason and the user's line, and so do the report and ``strict``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import pickle
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpass
from fxpass import reasons
from fxpass.report.explanation import Explanation
from fxpass.torch_internals.dynamo.graph_breaks.causes import breaks
from fxpass.torch_internals.dynamo.inputs.pinned_numbers import _failing

CAPACITY = 16
W = torch.linspace(-1, 1, 16).view(4, 4)
LOCK = threading.Lock()
Step = Callable[[Tensor, int], Any]


@torch.library.custom_op("kvfix_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("kvfix_tests::picked", mutates_args=())
def picked(x: Tensor, rows: Tensor) -> Tensor:
    return x.index_select(1, rows)


@picked.register_fake
def _(x: Tensor, rows: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], rows.shape[0], x.shape[2])


@torch.library.custom_op("kvfix_tests::put", mutates_args=("x",))
def put(x: Tensor, row: int) -> None:
    x[:, row] = 1


@torch.library.custom_op("kvfix_tests::both", mutates_args=())
def both(x: Tensor, p: int) -> tuple[Tensor, Tensor]:
    return x[:, :p].sum(1), x[:, p:].sum(1)


@both.register_fake
def _(x: Tensor, p: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(2, 4), x.new_empty(2, 4)


def places(p: int) -> Tensor:
    return torch.arange(p)[None, :, None].expand(2, p, 4)


@torch.compiler.disable
def opaque(x: Tensor) -> Tensor:
    return x * 2


@torch.compiler.disable
def sliced(x: Tensor, p: int) -> Tensor:
    return x.narrow(1, 0, p)


@torch.compiler.disable
def attended(q: Tensor, k: Tensor, p: int) -> Tensor:
    return F.scaled_dot_product_attention(q, k[:, :p], k[:, :p])


CUT = functools.partial(torch.narrow, dim=1, start=0)


@torch._dynamo.disable(recursive=False)
def narrowed_here(k: Tensor, p: int) -> Tensor:
    return (k.narrow(1, 0, p) @ W).sum(1)


class Excluded(nn.Module):
    @torch.compiler.disable
    def forward(self, k: Tensor, p: int) -> Tensor:
        return (k[:, :p] @ W).sum(1)


EXCLUDED = Excluded()


@torch.compiler.disable
def said_of(k: Tensor, p: int) -> None:
    str(k.norm() * p)


def held(k: Tensor, p: int) -> Tensor:
    found = {"rows": sliced(k, p)}
    torch._dynamo.graph_break()
    return (found["rows"] @ W).sum(1)


def within(k: Tensor, p: int) -> Tensor:
    def inner(c: Tensor) -> Tensor:
        return (c[:, :p] @ W).mode(1).values

    return inner(k)


def between(k: Tensor, p: int) -> Tensor:
    rows = k[:, :p]
    torch._dynamo.graph_break()
    return (rows @ W).sum(1)


def in_a_loop(k: Tensor, p: int) -> Tensor:
    out = torch.zeros(2, 4)
    for end in (p, p - 1):
        rows = k[:, :end] @ W
        torch._dynamo.graph_break()
        out = out + rows.sum(1)
    return out


def locked(k: Tensor, p: int) -> Tensor:
    with LOCK:
        return (k[:, :p] @ W).sum(1)


def narrowed(k: Tensor, p: int) -> Tensor:
    with LOCK:
        return (k.narrow(1, 0, p) @ W).sum(1)


def multiplied(k: Tensor, p: int) -> Tensor:
    with LOCK:
        return (CUT(k, length=p) @ W).sum(1)


def generated(k: Tensor, p: int) -> Tensor:
    def rows() -> Iterator[Tensor]:
        for end in (p, p - 1):
            torch._dynamo.graph_break()
            yield (k[:, :end] @ W).sum(1)

    return sum(rows())


def within_try(k: Tensor, p: int) -> Tensor:
    try:
        return (opaque(k[:, :p]) @ W).sum(1)
    finally:
        torch.zeros(1)


SAID: dict[str, tuple[str, Step]] = {
    # the slice meets what has no rule, or leaves the graph
    "a user's operator": ("KV101", lambda k, p: (doubled(k[:, :p]) @ W).sum(1)),
    "an operator without a rule": ("KV101", lambda k, p: torch.linalg.svdvals(k[:, :p] @ W)),
    "in a nested function": ("KV101", within),
    "dropout": ("KV113", lambda k, p: (F.dropout(k[:, :p], 0.5) @ W).sum(1) * 0),
    "chunks": ("KV118", lambda k, p: (k[:, :p].chunk(2, 1)[0] @ W).sum(1)),
    "a result": ("KV107", lambda k, p: k[:, :p] * 2),
    "a list of results": ("KV108", lambda k, p: [k[:, :p], k[:, p:]]),
    "a graph break": ("KV301", between),
    "a function that is not compiled": ("KV301", lambda k, p: (opaque(k[:, :p]) @ W).sum(1)),
    "a choice by data": ("KV301", lambda k, p: (k[:, :p][k[:, :p, 0] > 2] @ W).sum(0)),
    "a sparse tensor": ("KV107", lambda k, p: torch.sparse.mm(k[0, :p].to_sparse(), W)),
    "a list of numbers": ("KV107", lambda k, p: (k @ W).sum(1) + k[0, :p, 0].tolist()[0]),
    # it is taken between two graphs
    "a slice in a function that is not compiled": ("KV213", lambda k, p: (sliced(k, p) @ W).sum(1)),
    "the same, between two graphs": ("KV213", lambda k, p: k.sum(1) + (sliced(k, p) @ W).sum(1)),
    "a slice that is held": ("KV213", held),
    "an evaluated text": ("KV213", lambda k, p: (eval("k[:, :p]") @ W).sum(1)),
    "rows that a list of truths takes": ("KV213", lambda k, p: (k[:, (torch.arange(CAPACITY) < p).tolist()] @ W).sum(1)),
    "rows that a mask takes": ("KV213", lambda k, p: (k[torch.arange(CAPACITY).expand(2, -1) < p] @ W).sum(0)),
    # a function that is not compiled does all of it
    "attention that is excluded": ("KV214", lambda k, p: attended(k[:, :1], k, p)[:, 0]),
    "excluded, between two graphs": ("KV214", lambda k, p: (attended(k[:, :1] * 2, k, p) + k[:, :1]) @ W),
    "a function that is excluded by itself": ("KV214", lambda k, p: narrowed_here(k, p) + 1),
    "a module that is excluded": ("KV214", lambda k, p: EXCLUDED(k, p) + 1),
    # Dynamo gives up on the function
    "a graph break in a loop": ("KV012", in_a_loop),
    "a graph break in a try": ("KV012", within_try),
    "a lock before any operator": ("KV012", locked),
    "a lock, and no slice": ("KV012", narrowed),
    "a lock, and a product": ("KV012", multiplied),
    "a generator": ("KV012", generated),
    "a choice by data in a loop": ("KV012", lambda k, p: sum(k[:, :p].sum(1) * (2 if k.sum() > 2 else 1) for _ in (0, 1))),
    # a part that is no slice
    "pieces": ("KV130", lambda k, p: (k.split([p, CAPACITY - p], 1)[0] @ W).sum(1)),
    "strides": ("KV130", lambda k, p: (k.as_strided((2, p, 4), k.stride()) @ W).sum(1)),
    "places": ("KV130", lambda k, p: (k[:, torch.arange(p)] @ W).sum(1)),
    "places along a dim": ("KV130", lambda k, p: (k.take_along_dim(torch.arange(p)[None, :, None], 1) @ W).sum(1)),
    "rows of a table": ("KV130", lambda k, p: (F.embedding(torch.arange(p), k[0]) @ W).sum(0)),
    "a bag of rows": ("KV130", lambda k, p: F.embedding_bag(torch.arange(p)[None], k[0], mode="sum")),
    "rows put elsewhere": ("KV130", lambda k, p: torch.zeros(2, CAPACITY, 4).scatter(1, places(p), k).sum(1)),
    "a user's operator that is told places": ("KV130", lambda k, p: picked(k, torch.arange(p)).sum(1)),
    # an operator is told the position itself
    "a user's operator that is told how many": ("KV127", lambda k, p: both(k, p)[0] @ W),
    "a user's operator that writes at a position": ("KV127", lambda k, p: (put(k, p), (k @ W).sum(1))[1]),
    # made as long as the position says, of no cache
    "repeated rows": ("KV210", lambda k, p: (k[:, :1].repeat(1, p, 1) @ W).sum(1)),
    "expanded rows": ("KV210", lambda k, p: (k[:, :1].expand(2, p, 4).contiguous() @ W).sum(1)),
    "a new tensor": ("KV210", lambda k, p: (torch.ones(2, p, 4) @ W).sum(1) + k[:, 0]),
    "padded behind": ("KV210", lambda k, p: (F.pad(k, (0, 0, 0, p)) @ W).sum(1)),
    # a graph for each position, since something needs its value
    "a sum of outer products": ("KV303", lambda k, p: torch.kron(k[0, :p], k[0, :2]).sum(0)),
    "a grid": ("KV303", lambda k, p: (torch.linspace(0, 1, p)[:, None] * k[:, :p]).sum(1)),
    "a pool": ("KV303", lambda k, p: F.max_pool1d(k[:, :p].mT, 2).sum(2)),
    "a window of the cache": ("KV303", lambda k, p: k.unfold(1, p, 1)[:, 0].sum(2)),
    "a list of rows": ("KV303", lambda k, p: sum(k[:, i] for i in range(p))),
    "rows taken apart": ("KV303", lambda k, p: sum(k[:, :p].unbind(1)) @ W),
    "a list that is indexed": ("KV303", lambda k, p: k[:, list(range(p))] @ W),
    "a key": ("KV303", lambda k, p: {q: k[:, :q] @ W for q in (p,)}[p].sum(1)),
    # a graph as a whole
    "vmap": ("KV003", lambda k, p: torch.vmap(lambda c: (c[:p] @ W).sum(0))(k)),
    "cond": ("KV004", lambda k, p: torch.cond(k.sum() > 2, lambda c: (c[:, :p] @ W).sum(1), lambda c: c.sum(1), (k,))),
    "ragged rows": ("KV011", lambda k, p: torch.nested.nested_tensor([k[0, :p]], layout=torch.jagged).values() @ W),
}


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """The warnings of kvfix in the block, once it is left."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(w.message) for w in caught if w.category is fxpass.KvfixWarning]


def heard(step: Step, **options: Any) -> str:
    """What is warned of while ``step`` is called at three positions."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", **options})
    k = torch.rand(2, CAPACITY, 4)
    with hearing() as said:
        for p in (8, 9, 10):
            torch.testing.assert_close(compiled(k, p), step(k, p))
    return "\n".join(said)


@torch.no_grad()
@pytest.mark.parametrize("name", SAID)
def test_a_warning_names_the_reason_and_the_line(name: str) -> None:
    id, step = SAID[name]
    said = heard(step)
    lines, first = inspect.getsourcelines(step)
    own = [f"test_silence.py:{line}" for line in range(first, first + len(lines))]
    assert any(id in line and any(place in line for place in own) for line in said.splitlines()), said
    assert "aten.aten" not in said and ".default" not in said and "0x" not in said
    assert Explanation(fxpass.reports()).is_left


@torch.no_grad()
def test_what_breaks_the_graph_in_pythons_library_is_told_of_where_it_is_called() -> None:
    def step(k: Tensor, p: int) -> Tensor:
        rows = k[:, :p] * 2
        logging.getLogger("kvfix.tests").info("a step")  # breaks in logging
        with LOCK:
            return (rows @ W).sum(1)

    said = heard(step)
    first = inspect.getsourcelines(step)[1]
    assert f"KV301 the graph breaks at {__file__}:{first + 2}: " in said, said
    assert f"KV012 the rest of step is left to eager: Unsupported context manager at {__file__}:{first + 3}" in said, said
    assert "torch_dynamo_resume" not in said


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    ["a user's operator", "places", "a new tensor", "cond", "a graph break in a loop", "attention that is excluded"],
)
def test_strict_raises(name: str) -> None:
    with pytest.raises((torch._dynamo.exc.BackendCompilerFailed, fxpass.KvfixError), match=SAID[name][0]):
        heard(SAID[name][1], strict=True)


@torch.no_grad()
def test_light_ops_without_a_static_core_are_reported() -> None:
    assert heard(lambda k, p: F.cross_entropy(k[0, :p], torch.zeros(p, dtype=torch.long))) == ""
    (text,) = fxpass.reports()[-1].beside
    assert text.startswith("KV212 light ops run in a graph without a static core: ") and "test_silence.py" in text


@torch.no_grad()
@pytest.mark.parametrize(
    "step",
    [
        lambda k, p: (k[:, :1] @ W).sum(1) + p,
        lambda k, p: (k[:, :p], (k @ W).sum(1))[1],
        lambda k, p: (k[:, :p] * torch.outer(torch.arange(p), k[0, 0])).sum(1),
        lambda k, p: (said_of(k, p), (k[:, :p] @ W).sum(1))[1],
        lambda k, p: (pickle.loads(pickle.dumps(k))[:, :p] @ W).sum(1),
        lambda k, p: (k[:, torch.arange(CAPACITY) < p] @ W).sum(1),
    ],
)
def test_where_nothing_is_lost_nothing_is_said(step: Step) -> None:
    assert heard(step) == "" and not Explanation(fxpass.reports()).is_left


Grow = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def joined(read: Grow) -> Grow:
    return lambda k, x: read(torch.cat([k, x], 1), x)


def joined_before_a_break(read: Grow) -> Grow:
    def step(k: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        longer = torch.cat([k, x], 1)
        torch._dynamo.graph_break()
        return read(longer, x)

    return step


@torch.compiler.disable
def worked_on(k: Tensor) -> Tensor:
    return torch.matmul(k, W).sum(1)


def joined_and_handed_on(k: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    longer = torch.cat([k, x], 1)
    return worked_on(longer), longer


GROWN: dict[str, tuple[str, Grow]] = {
    "an operator without a rule": ("KV201", joined(lambda k, x: ((k @ W).mode(1).values, k))),
    "the operator of a user": ("KV201", joined(lambda k, x: ((doubled(k) @ W).sum(1), k))),
    "a result that is too long": ("KV201", joined(lambda k, x: ((r := k @ W).mul_(2), r[:, ::2]))),
    "a break behind the join": ("KV213", joined_before_a_break(lambda k, x: ((k @ W).sum(1), k))),
    "the operator of a function that is excluded": ("KV214", joined_and_handed_on),
    "rows put in front": ("KV206", lambda k, x: ((k @ W).sum(1), torch.cat([x, k], 1))),
    "rows put in front, any number": ("KV206", lambda k, x: ((k @ W).sum(1), torch.cat([x.repeat(1, 2, 1), k], 1))),
}


def grown(grow: Grow, rows: tuple[int, ...] = (1,) * 4, **options: Any) -> str:
    """What is warned of while a cache grows by ``rows``."""
    compiled = torch.compile(grow, backend="kvfix", options={"compiler": "eager", **options})
    k = torch.rand(2, 3, 4)
    with hearing() as said:
        for n in rows:
            x = torch.rand(2, n, 4)
            out, longer = compiled(k, x)
            torch.testing.assert_close((out, longer), grow(k, x))
            k = longer if longer.shape[1] > k.shape[1] else torch.cat([k, x], 1)
    return "\n".join(said)


@torch.no_grad()
@pytest.mark.parametrize("name", GROWN)
def test_a_cache_that_grows_without_a_buffer_is_told_of(name: str) -> None:
    id, grow = GROWN[name]
    said = grown(grow)
    explanation = Explanation(fxpass.reports())
    assert said.count(id) == 1 and said.count("runs as it is") == 1, said
    assert any(id in text for report in fxpass.reports() for text in explanation.why(report)) and explanation.is_left


@torch.no_grad()
@pytest.mark.parametrize("name", ["an operator without a rule", "a break behind the join", "rows put in front"])
def test_strict_raises_for_a_cache_that_grows_without_a_buffer(name: str) -> None:
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=GROWN[name][0]):
        grown(GROWN[name][1], strict=True)


def others(grow: Callable[..., Any], *sizes: int, **options: Any) -> str:
    """What is warned of while ``grow`` is given tensors of these sizes, none of which the last call has made."""
    compiled = torch.compile(grow, backend="kvfix", options={"compiler": "eager", **options})
    with hearing() as said:
        for n in sizes:
            given = torch.rand(2, n, 4), torch.rand(2, 1, 4)
            torch.testing.assert_close(compiled(*given), grow(*given))
    return "\n".join(said)


def evaluated(k: Tensor, p: int) -> Tensor:
    return eval("(k[:, :p] @ W).sum(1)") + k[:, 0]


def in_a_thread(k: Tensor, p: int) -> Tensor:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(narrowed(k, p)))
    thread.start()
    thread.join()
    return found[0] + k[:, 0]


SLICES = compile("(k[:, :p] @ W).sum(1)", "<string>", "eval")
POOL = ThreadPoolExecutor(1)


def executed(k: Tensor, p: int) -> Tensor:
    names = {"k": k, "p": p, "W": W}
    exec("rows = (k[:, :p] @ W).sum(1)", names)
    return names["rows"] + k[:, 0]


def of_what_is_made(k: Tensor, p: int) -> Tensor:
    made, found = k * 2, []
    thread = threading.Thread(target=lambda: found.append((made[:, :p] @ W).sum(1)))
    thread.start()
    thread.join()
    return found[0] + k[:, 0]


@torch.no_grad()
@pytest.mark.parametrize(
    "step, line",
    [
        (evaluated, 1),
        (executed, 2),
        (lambda k, p: eval(SLICES) + k[:, 0], 0),
        (in_a_thread, 2),
        (of_what_is_made, 2),
        (lambda k, p: POOL.submit(narrowed, k, p).result() + k[:, 0], 0),
    ],
)
def test_what_is_run_elsewhere_is_told_of(step: Step, line: int) -> None:
    """What is evaluated, or run by another thread, is never compiled."""
    place, said = f"{__file__}:{inspect.getsourcelines(step)[1] + line}", heard(step)
    assert any("KV214" in text and text.endswith(f"it is called at {place}") for text in said.splitlines()), said
    assert Explanation(fxpass.reports()).is_left
    torch._dynamo.reset()
    with pytest.raises(fxpass.KvfixError, match="KV214"):
        heard(step, strict=True)


@torch.no_grad()
def test_what_a_queue_hands_to_a_thread_is_a_break() -> None:
    """Nothing in the call tells what the thread does."""
    asked: queue.Queue[tuple[Tensor, int]] = queue.Queue()
    found: queue.Queue[Tensor] = queue.Queue()

    def work() -> None:
        for k, p in iter(asked.get, None):
            found.put(narrowed(k, p))

    def step(k: Tensor, p: int) -> Tensor:
        asked.put((k, p))
        return found.get() + k[:, 0]

    thread = threading.Thread(target=work)
    thread.start()
    assert "KV214" not in heard(step)
    asked.put(None)  # type: ignore[arg-type]
    thread.join()
    first = inspect.getsourcelines(step)[1]
    assert any(where == f"{__file__}:{first + 1}" for _, where in breaks())


def run_in_a_thread(target: Callable[..., Any], *args: Any) -> None:
    thread = threading.Thread(target=target, args=args)
    thread.start()
    thread.join()


def first_letters(text: str, p: int) -> str:
    return text[:p]


@torch.no_grad()
@pytest.mark.parametrize(
    "step",
    [
        lambda k, p: eval("p * 2") + k[:, 0],
        lambda k, p: len(eval("__file__[:p]")) + k[:, 0],
        lambda k, p: (run_in_a_thread(first_letters, "step", p), k[:, 0])[1],
        lambda k, p: (run_in_a_thread(torch.relu, k), k[:, 0])[1],
    ],
)
def test_what_is_run_elsewhere_and_slices_no_tensor_is_not_told_of(step: Step) -> None:
    assert heard(step, strict=True) == ""


def worked_on_by_rows(rows: Tensor) -> Tensor:
    return (rows @ W).sum(1)


def handed_in(rows: Callable[[Tensor, int], Tensor], written: bool = True, marked: bool = False, **options: Any) -> str:
    """What is warned of while what is compiled is given ``rows`` of a cache, one more in each call."""
    compiled = torch.compile(worked_on_by_rows, backend="kvfix", options={"compiler": "eager", **options})
    k = torch.zeros(2, CAPACITY, 4)
    with hearing() as said:
        for p in range(3, 9):
            if written:
                k[:, p] = torch.rand(2, 4)
            given = rows(k, p)
            if marked:
                torch._dynamo.mark_dynamic(given, 1)
            torch.testing.assert_close(compiled(given), worked_on_by_rows(given))
    return "\n".join(said)


def up_to(k: Tensor, p: int) -> Tensor:
    return k[:, : p + 1]


@torch.no_grad()
@pytest.mark.parametrize("marked", [False, True])
def test_a_slice_that_the_caller_takes_is_told_of(marked: bool) -> None:
    said = handed_in(up_to, marked=marked)
    line = inspect.getsourcelines(worked_on_by_rows)[1] + 1
    assert said.count("KV215") == 1 and f"test_silence.py:{line}: rows is a slice of a larger tensor" in said, said
    assert Explanation(fxpass.reports()).is_left
    torch._dynamo.reset()
    with pytest.raises(fxpass.KvfixError, match="KV215"):
        handed_in(up_to, marked=marked, strict=True)


@torch.no_grad()
def test_other_slices_of_the_caller_are_not_told_of() -> None:
    """A series that nobody writes to, a new tensor in each call, other rows, and prompts of any length."""
    lengths = iter((3, 7, 4, 9, 5, 6))
    assert handed_in(up_to, written=False, strict=True) == ""
    assert handed_in(lambda k, p: k[:, : p + 1].clone(), strict=True) == ""
    assert handed_in(lambda k, p: k[:, p - 2 : p + 1], strict=True) == ""
    assert handed_in(lambda k, p: k[:, : next(lengths)], strict=True) == ""


OTHERS = (5, 9, 12, 3, 30, 7, 6, 11, 4, 8)


@torch.no_grad()
def test_a_buffer_in_vain_is_told_of_once() -> None:
    grow = joined(lambda k, x: ((k @ W).sum(1), k))
    assert others(grow, *OTHERS).count("KV202") == 1 and Explanation(fxpass.reports()).is_left
    torch._dynamo.reset()
    with pytest.raises(fxpass.KvfixError, match="KV202"):
        others(grow, *OTHERS, strict=True)


NO_CACHES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a token before the patches": lambda k, x: torch.cat([x, k], 1) @ W,
    "a frame that is padded": lambda k, x: F.pad(k, (0, 0, 1, 1)).unfold(1, 3, 1).sum(-1) @ W + F.pad(k, (0, 0, 0, 1))[:, 1:],
    "a series": lambda k, x: k.cumsum(1)[:, -1] @ W,
    "a prompt": lambda k, x: (k @ W, k.sum(1)),
}


@torch.no_grad()
@pytest.mark.parametrize("grow", NO_CACHES.values(), ids=NO_CACHES)
def test_what_has_another_size_on_each_call_is_no_cache(grow: Callable[..., Any]) -> None:
    assert others(grow, *OTHERS, strict=True) == "" and not Explanation(fxpass.reports()).is_left


class Listed(nn.Module):
    """A cache of which a list tells the position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = [1]
        self.register_buffer("cache", torch.zeros(2, CAPACITY, 4))

    def forward(self, x: Tensor) -> Tensor:
        p = len(self.tokens)
        self.cache[:, p : p + 1] = x
        self.tokens.append(p)
        return (self.cache[:, : p + 1] @ W).sum(1)


class Chunks(Listed):
    """A cache in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks = [torch.zeros(2, 2, 4)]

    def forward(self, x: Tensor) -> Tensor:
        self.chunks.append(x)
        return (torch.cat(self.chunks, 1) @ W).sum(1)


class Named(Listed):
    """A text that is another in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.step = "a"

    def forward(self, x: Tensor) -> Tensor:
        self.step += "."
        return (self.cache + x if self.step.startswith("a") else x).sum(1) @ W


def counted(*models: nn.Module, calls: int = 7, **options: Any) -> list[str]:
    """The lines with KV303 that are warned of while steps of ``models`` are taken in turns."""
    compiled = [torch.compile(model, backend="kvfix", options={"compiler": "eager", **options}) for model in models]
    with hearing() as said:
        for n in range(calls):
            for one in compiled:
                one(torch.full((2, 1, 4), float(n)))
    return [line for text in said for line in text.splitlines() if "KV303" in line]


@torch.no_grad()
@pytest.mark.parametrize("model", [Listed, Named, Chunks])
def test_a_graph_in_each_call_without_a_symbol(model: Callable[[], nn.Module]) -> None:
    said = counted(model())
    assert said and Explanation(fxpass.reports()).is_left
    assert "test_silence.py" in said[0] or "cache" in said[0]
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="KV303"):
        counted(model(), strict=True)


@pytest.mark.parametrize(
    "guard, is_told",
    [
        ("name == 'a{}'  # name.startswith('a')  # model.py:3 in step", True),
        ("list(dict.keys(d))[0] == 'a{}'  # d.values()  # model.py:3 in step", True),
        ("len(seen) == {}  # seen.append(1)  # model.py:3 in step", True),
        ("tensor 'x' size mismatch at index 1. expected {}, actual 9", True),
        ("d['a{}'] == 1  # d['a']  # model.py:3 in step", False),  # each is another item
    ],
)
def test_guards_that_fail_on_each_other_value(guard: str, is_told: bool) -> None:
    latest_first = [guard.format(n) for n in (6, 5, 4, 3)]
    assert bool(_failing(latest_first)) == is_told
    assert not _failing(latest_first[1:]) and not _failing(["p == 0", *latest_first])


class Indexed(nn.Module):
    """One of many blocks that share a frame: its number is a constant of its own graph alone."""

    def __init__(self, layer: int, caches: list[Tensor]) -> None:
        super().__init__()
        self.layer, self.caches, self.end = layer, caches, torch.tensor([2])

    def forward(self, x: Tensor) -> Tensor:
        end = int(self.end[0]) + 1
        self.end[0] = end
        self.caches[self.layer][:, end - 1 : end] = x
        return (self.caches[self.layer][:, :end] @ W).sum(1)


@torch.no_grad()
def test_blocks_of_which_each_has_a_graph_are_not_told_of() -> None:
    caches = [torch.zeros(2, CAPACITY, 4) for _ in range(7)]
    assert counted(*(Indexed(layer, caches) for layer in range(7)), calls=3) == []


Layer = Callable[[int, int], Any]
CACHES = [torch.zeros(2, CAPACITY, 4) for _ in range(6)]
SHARED, BOTH = torch.zeros(6, 2, CAPACITY, 4), torch.zeros(2, 6, 2, CAPACITY, 4)
HEADS = [2, 3, 4, 5, 6, 7]


def update(cache: Tensor, p: int) -> Tensor:
    cache[:, p : p + 1] = 1
    return (cache[:, : p + 1] @ W).sum(1)


LAYERS: dict[str, Layer] = {
    "a loop": lambda layer, p: update(CACHES[layer], p) + sum(range(layer)),
    "a list of numbers": lambda layer, p: update(CACHES[layer], p).repeat(HEADS[layer], 1),
    "a branch": lambda layer, p: update(CACHES[layer], p) * (1 if layer == 0 else 2 if layer == 5 else 3),
    "a set": lambda layer, p: update(CACHES[layer], p) * (2 if layer in (1, 3, 5) else 1),
    "one tensor for all": lambda layer, p: update(SHARED[layer], p) + sum(range(layer)),
    "a tensor that is taken apart": lambda layer, p: update(SHARED.unbind(0)[layer], p),
    "a tensor in pieces": lambda layer, p: update(SHARED.chunk(6)[layer][0], p),
    "a part of a part": lambda layer, p: update(SHARED[1:].split(1)[layer - 1][0], p) if layer else update(SHARED[0:1][0], p),
    "keys and values of all": lambda layer, p: update(BOTH[0, layer], p) + update(BOTH[1][layer], p) + sum(range(layer)),
}


def told_of_layers(layer: Layer, **options: Any) -> set[str]:
    """The ids of what is warned of while the layers of a model are run at three positions."""
    compiled = torch.compile(layer, backend="kvfix", options={"compiler": "eager", **options})
    with hearing() as said:
        for p in (2, 3, 4):
            for number in range(6):
                compiled(number, p)
    return {reason.id for text in said for line in text.splitlines() if (reason := reasons.of(line.strip()))}


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_number_of_a_layer_is_no_number_that_moves(layer: Layer) -> None:
    with torch.compiler.config.patch(recompile_limit=32):
        assert told_of_layers(layer, strict=True) == set()


@torch.no_grad()
def test_more_layers_than_graphs_are_told_of() -> None:
    with torch.compiler.config.patch(recompile_limit=4):
        assert told_of_layers(LAYERS["a loop"]) == {"KV304"} and Explanation(fxpass.reports()).is_left
        torch._dynamo.reset()
        with pytest.raises(fxpass.KvfixError, match="KV304 <lambda> has 4 graphs"):
            told_of_layers(LAYERS["a loop"], strict=True)


@torch.no_grad()
@pytest.mark.parametrize("write", [lambda k, p: k[:, p : p + 1].fill_(1), lambda k, p: k[:, p].fill_(1)])
def test_a_position_is_told_of_in_each_layer(write: Step) -> None:
    """Where caches differ from layer to layer, what moves with the steps of each is no number of a layer."""

    def step(cache: Tensor, p: int) -> Tensor:
        write(cache, p)
        return sum(cache[:, i] for i in range(p)) @ W

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    with hearing() as said, torch.compiler.config.patch(recompile_limit=32):
        for p in (2, 3, 4, 5):
            for cache in CACHES[:2]:
                compiled(cache, p)
    assert any("KV303" in text for text in said)


def broken(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return (x @ W).sum(1)


def broken_later(x: Tensor) -> Tensor:
    rows = x[:, 1:] * 2
    torch._dynamo.graph_break()
    return (rows @ W).sum(1)


@torch.no_grad()
@pytest.mark.parametrize("prompt", [broken, broken_later, lambda x: (opaque(x) @ W).sum(1)])
def test_prompts_behind_a_break_are_not_told_of(prompt: Callable[[Tensor], Tensor]) -> None:
    compiled = torch.compile(prompt, backend="kvfix", options={"compiler": "eager", "strict": True})
    for length in (5, 9, 10, 11):
        compiled(torch.rand(2, length, 4))


@torch.no_grad()
@pytest.mark.parametrize("dynamic", [None, False])
def test_prompts_of_any_length_are_not_told_of(dynamic: bool | None) -> None:
    def step(x: Tensor) -> Tensor:
        return (x @ W).sum(1)

    compiled = torch.compile(step, backend="kvfix", dynamic=dynamic, options={"compiler": "eager", "strict": True})
    for length in range(2, 9):
        compiled(torch.rand(2, length, 4))
