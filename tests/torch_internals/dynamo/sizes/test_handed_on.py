"""What a call has returned is dynamic from the first step on, and that step is traced no more often than in stock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import fxpass
from fxpass.torch_internals.dynamo.sizes import dynamism

Step = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]
PROMPT = 5


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v)


def joined(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    k = x if past is None else torch.cat([past, x], 1)
    return attend(x, k, k), k


def asked_first(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    """The past is asked for its size before the prompt is."""
    start = 0 if past is None else past.shape[1]
    return joined(x + start, past)


def by_rows(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    """The rows lie first."""
    k = x.movedim(1, 0) if past is None else torch.vstack([past, x.movedim(1, 0)])
    return attend(x, k.movedim(0, 1), k.movedim(0, 1)), k


def padded(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    k = x.clone() if past is None else nn.functional.pad(past, (0, 0, 0, 1))
    k[:, -1:] = x[:, -1:]
    return attend(x, k, k), k


def before(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    """The new rows come first: a series of the caller's."""
    k = x if past is None else torch.cat([x, past], 1)
    return attend(x, k, k), k


def in_a_dict(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    y, k = joined(x, None if past is None else past["k"])
    return y, {"k": k}


def many(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    kept = []
    for i in range(4):
        x, k = joined(x, None if past is None else past[i])
        kept.append(k)
    return x, kept


def kept_as_it_is(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    """What the prompt has given is read in each step, and nothing is joined to it."""
    k = x * 2 if past is None else past
    return attend(x, k, k), k


def beside_what_stays(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    """What is joined, and what stays, are as long as the prompt at first."""
    y, k = joined(x, None if past is None else past[0])
    kept = x * 2 if past is None else past[1]
    return y + attend(x, kept, kept), (k, kept)


def a_state(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    state = x.sum(1) if past is None else past + x.sum(1)
    return state, state


def run(fn: Step, prompt: int = PROMPT, steps: int = 5, edit: Any = lambda past: past, **how: Any) -> tuple[list[int], int]:
    """How often the function had been traced after each call, and how many graphs there are in the end; numbers are eager's."""
    traced: list[int] = []

    @torch.compiler.assume_constant_result
    def trace() -> int:
        traced.append(1)
        return 0

    def forward(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
        return fn(x + trace(), past)

    torch.compiler.reset()
    fxpass.reset()
    counters.clear()
    compiled, mine, other, seen = torch.compile(forward, **how), None, None, []
    for step in range(steps):
        x = torch.randn(2, 1 if step else prompt, 8)
        (y, mine), (wanted, other) = compiled(x, mine), fn(x, other)
        torch.testing.assert_close((y, mine), (wanted, other))
        mine, other = edit(mine), edit(other)
        seen.append(len(traced))
    return seen, counters["stats"]["unique_graphs"]


OURS: dict[str, Any] = {"backend": "kvfix", "options": {"compiler": "eager"}}


@pytest.mark.parametrize(
    "fn", [joined, asked_first, by_rows, padded, before, in_a_dict, many, kept_as_it_is, beside_what_stays, a_state]
)
def test_the_first_step_is_traced_once(fn: Step) -> None:
    found, stock = run(fn, **OURS), run(fn, backend="eager")
    assert found[0] == [1, 2, 2, 2, 2] and found[1] == 2
    assert found[0] <= stock[0] and found[1] <= stock[1]


def test_rows_taken_back_from_the_prompt() -> None:
    assert run(joined, edit=lambda past: past[:, :-1], **OURS) == ([1, 2, 2, 2, 2], 2)


@pytest.mark.parametrize("fn, prompt", [(joined, 2), (joined, 8), (by_rows, 8)])
def test_where_inputs_do_not_tell_the_dim_the_end_of_the_graph_does(fn: Step, prompt: int) -> None:
    """As many rows as there are requests, or as wide as they are."""
    assert run(fn, prompt, **OURS) == ([1, 3, 3, 3, 3], 2)


def written(x: torch.Tensor, past: Any) -> tuple[torch.Tensor, Any]:
    if past is not None:
        past.mul_(0.5)
    return joined(x, past)


def test_what_the_graph_writes_is_left_to_dynamo() -> None:
    with pytest.warns(fxpass.KvfixWarning, match="KV206"):
        found = run(written, **OURS)
    stock = run(written, backend="eager")
    assert found == ([1, 3, 4, 4, 4], 3) and stock == ([1, 2, 3, 3, 3], 3)


@pytest.mark.parametrize("dynamic", [False, True])
def test_what_the_user_says_of_sizes_is_traced_as_in_stock(dynamic: bool) -> None:
    assert run(joined, dynamic=dynamic, **OURS) == run(joined, dynamic=dynamic, backend="eager")


@torch.no_grad()
def test_an_input_is_looked_at_once_in_a_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once for each of the caches that Dynamo meets."""
    looks: list[str] = []

    def value_of(tx: Any, name: str) -> Any:
        looks.append(name)
        return stock(tx, name)

    stock = dynamism.value_named
    monkeypatch.setattr(dynamism, "value_named", value_of)
    compiled = torch.compile(many, backend="kvfix", options={"compiler": "eager"})
    _, past = compiled(torch.randn(1, PROMPT, 8), None)
    compiled(torch.randn(1, 1, 8), past)
    assert looks and len(looks) == len(set(looks))
