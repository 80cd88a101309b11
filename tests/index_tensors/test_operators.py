"""What a rule is for is told by the operator: a user's of the same name does what the user says."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fxpass.index_tensors.operators import belongs_to_a_library, by_operator
from fxpass.index_tensors.rules import RULES
from fxpass.index_tensors.table import Table

LIBRARY = torch.library.Library("kvfix_named", "DEF")


def define(schema: str, function: Callable[..., Any], fake: Callable[..., Any]) -> None:
    LIBRARY.define(schema)
    name = schema.split("(")[0]
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"kvfix_named::{name}", fake, lib=LIBRARY)


like = torch.empty_like
define("add(Tensor a, int b) -> Tensor", lambda a, b: a + 2 * b, lambda a, b: like(a))
define("add.twice(Tensor a, Tensor b) -> Tensor", lambda a, b: a + 3 * b, lambda a, b: like(a))
define("clone(Tensor a) -> Tensor", lambda a: a + 5, lambda a: like(a))
define("max(Tensor a) -> Tensor", lambda a: a.min(), lambda a: a.new_empty(()))
define("add_(Tensor(a!) a, int b) -> ()", lambda a, b: (a.add_(2 * b), None)[1], lambda a, b: None)
define("copy_(Tensor a, Tensor b) -> Tensor", lambda a, b: b - a, lambda a, b: like(a))
define("arange(int n, Tensor like) -> Tensor", lambda n, like: torch.arange(n, 0, -1), lambda n, like: torch.arange(n))
named = torch.ops.kvfix_named


@torch.library.custom_op("kvfix_named_too::sub", mutates_args=())
def sub(a: Tensor, b: int) -> Tensor:
    return a + b


sub.register_fake(lambda a, b: like(a))


@torch.library.custom_op("kvfix_named_too::mul", mutates_args={"a"})
def mul(a: Tensor, b: int) -> None:
    a.add_(b)


mul.register_fake(lambda a, b: None)


class neg(torch.autograd.Function):  # noqa: N801
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a + 4

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@torch.compiler.allow_in_graph
def minimum(a: Tensor, b: Tensor) -> Tensor:
    return a + b


@torch.compiler.allow_in_graph
def detach(a: Tensor) -> Tensor:
    return a.add_(1)


class NumberInputs:
    """Not a tensor, with a tensor's methods."""

    def __init__(self, idx: Tensor) -> None:
        self.idx = idx

    def item(self) -> int:
        return int(self.idx[0].item()) + 1

    def tolist(self) -> list[int]:
        return [self.item(), 7]

    def add(self, n: int) -> Tensor:
        return self.idx - n


class Shifted(torch.Tensor):
    """A tensor with methods of its own."""

    def item(self) -> int:
        return 3

    def add(self, n: int) -> Tensor:
        return self.as_subclass(torch.Tensor) - n


def method_of_a_subclass(i: Tensor) -> Any:
    return i.as_subclass(Shifted).add(1).as_subclass(torch.Tensor)


def item_of_a_subclass(i: Tensor) -> Any:
    return i[:1].as_subclass(Shifted).item() + i[0]


PROGRAMS: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda i: named.add(i, 1),
    "an overload": lambda i: named.add.twice(i, i),
    "chosen by its arguments": lambda i: named.add(i, i),
    "default": lambda i: named.add.default(i, 1),
    "clone": lambda i: named.clone(i),
    "max": lambda i: named.max(i).reshape(1),
    "arange": lambda i: named.arange(2, i) + i,
    "copy_, which writes nothing": lambda i: named.copy_(i, i + 1) + i,
    "add_": lambda i: (named.add_(i, 1), i)[1],
    "custom_op": lambda i: sub(i, 1),
    "custom_op that writes": lambda i: (mul(i, 2), i + 1)[1],
    "autograd.Function": lambda i: neg.apply(i),
    "allowed in the graph": lambda i: minimum(i, i),
    "allowed, and writes": lambda i: detach(i) + i,
    "aten's packet": lambda i: torch.ops.aten.add(i, 1),
    "aten's overload": lambda i: torch.ops.aten.add.Tensor(i, i, alpha=3),
    "aten's in place": lambda i: torch.ops.aten.add_.Tensor(i, 1),
    "method as a function": lambda i: torch.Tensor.add(i, 1),
    "operator": lambda i: operator.iadd(operator.add(i, 1), 2),
    "method of a class": lambda i: torch.stack([NumberInputs(i).add(1)[0], NumberInputs(i).add(2)[1]]),
    "item of a class": lambda i: i + NumberInputs(i).item() + NumberInputs(i).tolist()[0],
    "method of a subclass": method_of_a_subclass,
    "item of a subclass": item_of_a_subclass,
}  # fmt: skip


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_number_and_index_are_those_of_eager(name: str, grad: bool) -> None:
    def step(x: Tensor, i: Tensor) -> tuple[Tensor, int]:
        n = int(PROGRAMS[name](i).reshape(-1)[0].item())
        i += 1
        return x[: n % 16].sum(), n

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    theirs, ours = torch.tensor([1, 4]), torch.tensor([1, 4])
    with torch.set_grad_enabled(grad):
        for call in range(4):
            assert step(torch.ones(16), theirs) == compiled(torch.ones(16), ours), call
            assert torch.equal(theirs, ours), call


def test_an_operator_without_results_still_runs() -> None:
    seen: list[int] = []
    library = torch.library.Library("kvfix_noted", "DEF")
    library.define("note(Tensor a) -> ()")
    library.impl("note", lambda a: seen.append(a.shape[0]), "CompositeExplicitAutograd")
    torch.library.register_fake("kvfix_noted::note", lambda a: None, lib=library)

    def step(x: Tensor, i: Tensor) -> Tensor:
        torch.ops.kvfix_noted.note(x)
        i += 1
        return x * 2

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "verify": 0})
    for _ in range(3):
        compiled(torch.ones(4), torch.tensor([1]))
    assert seen == [4, 4, 4]


def test_the_rules_are_for_operators_of_torch() -> None:
    rules = by_operator(RULES)
    assert all(isinstance(target, str) or belongs_to_a_library(target) or target.namespace == "aten" for target in rules)
    assert rules[torch.add] is rules[operator.add] is rules[torch.ops.aten.add.Tensor] is rules["add"]
    assert rules[operator.iadd] is rules["add_"] is not rules["add"]


def test_a_tensor_of_another_class_is_not_followed() -> None:
    class Plain(torch.Tensor):
        pass

    graph = torch.fx.Graph()
    node = graph.placeholder("idx")
    node.meta["example_value"] = torch.zeros(2, dtype=torch.int64).as_subclass(Plain)
    assert Table.of(graph).array(node) is None
