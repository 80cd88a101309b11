"""What is refused as a whole leaves nothing behind: the plan is for the graph in its normal form, node for node and without a
guard more, whichever stage has edited a copy of it before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, fx

import fxpass
from fxpass import backend
from fxpass.graph.normal_form import mode_of

CAPACITY = 12
State = tuple[list[tuple[Any, ...]], list[str], dict[Any, Any]]


@torch.library.custom_op("kvfix_tests::arranged", mutates_args=())
def arranged(x: Tensor) -> Tensor:
    """An operator of a user's: there will never be a rule for it."""
    return x.sort(1).values


@arranged.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def read(k: Tensor, f: float, p: int) -> Tensor:
    return arranged(k[:, : p + 1])


def times_a_float(k: Tensor, f: float, p: int) -> Tensor:
    return arranged(k[:, : p + 1]) * f + (k * f).sum()


def clamped_by_a_float(k: Tensor, f: float, p: int) -> Tensor:
    return arranged(k[:, : p + 1]) + k.clamp(-f, f).sum()


def divided_by_a_float(k: Tensor, f: float, p: int) -> Tensor:
    return arranged(k[:, p // 2 : p + 1] / f) + (k / f).sum()


def joined(past: Tensor, f: float, p: int) -> tuple[Tensor, Tensor]:
    whole = torch.cat([past, past[:, :1]], 1)
    return whole, arranged(whole).sum(1)


def stacked(past: Tensor, f: float, p: int) -> tuple[Tensor, Tensor]:
    whole = torch.cat([past[:, :, None, None], past[:, :1, None, None] * f], 1)
    return whole[:, :, 0, 0], arranged(torch.hstack([past, past]))


def padded(past: Tensor, f: float, p: int) -> tuple[Tensor, Tensor]:
    whole = torch.nn.functional.pad(past, [0, 1])
    return whole, arranged(whole).cumsum(1)


def filled_in_pieces(past: Tensor, f: float, p: int) -> tuple[Tensor, Tensor]:
    whole = past.new_empty(past.shape[0], past.shape[1] + 1)
    whole[:, :-1] = past
    whole[:, -1:] = past[:, :1]
    return whole, arranged(whole)


def least_of_two(past: Tensor, f: float, p: int) -> tuple[Tensor, Tensor]:
    whole = torch.cat([past, past[:, :1]], 1)
    rows = torch.sym_min(CAPACITY, whole.shape[1])
    return whole, arranged(whole)[:, -rows:]


def beside_a_mask(pair: tuple[Tensor, Tensor], f: float, p: int) -> tuple[Tensor, Tensor]:
    """The mask is as long as the cache is then, by what would be a guard."""
    whole = torch.cat([pair[0], pair[0][:, :1]], 1)
    return whole, arranged(whole + pair[1])


CACHES = [read, times_a_float, clamped_by_a_float, divided_by_a_float]
GROWING = [joined, stacked, padded, filled_in_pieces, least_of_two, beside_a_mask]


def state(gm: fx.GraphModule) -> State:
    """The nodes of ``gm``, the guards of its symbols, and what these are replaced by."""
    env = mode_of([n.meta["val"] for n in gm.graph.find_nodes(op="placeholder")]).shape_env
    nodes = [(n.name, n.op, n.target, str(n.args), str(n.kwargs)) for n in gm.graph.nodes]
    return nodes, [str(guard.expr) for guard in env.guards], dict(env.replacements)


@contextlib.contextmanager
def watched() -> Iterator[list[tuple[State, State, backend.Plan]]]:
    """The states of each graph in its normal form and when it is planned, with the plan."""
    forms: list[State] = []
    seen: list[tuple[State, State, backend.Plan]] = []
    to_normal_form, prepare = backend.to_normal_form, backend.prepare

    def formed(*args: Any) -> Any:
        form = to_normal_form(*args)
        forms.append(state(form.gm))
        return form

    def prepared(*args: Any) -> Any:
        plan, kinds = prepare(*args)
        seen.append((forms[-1], state(plan.gm), plan))
        return plan, kinds

    with mock.patch.object(backend, "to_normal_form", formed), mock.patch.object(backend, "prepare", prepared):
        yield seen


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@torch.no_grad()
@pytest.mark.parametrize("step", CACHES + GROWING, ids=lambda step: step.__name__)
def test_a_graph_with_only_refused_sites_is_planned_as_it_came(step: Callable[..., Any]) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    with watched() as seen:
        for p in range(3, 8):
            first = torch.rand(2, p if step in GROWING else CAPACITY)
            given = (first, torch.rand(2, p + 1)) if step is beside_a_mask else first, 1 / p, p
            torch.testing.assert_close(compiled(*given), step(*given))
    before, after, plan = seen[-1]
    assert not plan.parts and not plan.growth.axes
    assert before == after
    report = fxpass.reports()[-1]
    assert not report.unfit and (report.refused or report.unbuffered)
