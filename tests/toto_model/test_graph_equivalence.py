"""The decode graph that kvfix makes of the `upstream` cache is the one that a person writes by hand, `fixed_size`.

Both are captured as they are handed to the compiler, brought to the form of graph_form.py (docs/graph-equivalence.md)
and compared with networkx. The other half of the file changes one node and asks that the comparison sees it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from graph_form import Form, difference, isomorphic, normal_form
from small_models import kvfix
from torch import fx

import fxpass.backend
from fxpass.torch_internals.dynamo.inputs.numbers import NumberInputs
from fxpass.torch_internals.dynamo.inputs.origins import name_of
from toto_model import Toto, TotoBackbone, TotoConfig

aten = torch.ops.aten
CONFIG = replace(TotoConfig.tiny(), num_layers=3, spacewise_every_n_layers=3)
SERIES = "L['inputs']"
INDEX = "L['kv_cache']._current_idx"
NAMES = ("rewritten", "by hand")


@dataclass(frozen=True)
class Sizes:
    """One forecast: patches of the context, of the cache and decoded, and the batch."""

    context: int
    capacity: int
    decoded: int
    batch: int = 1
    variates: int = 3


SIZES = {"short": Sizes(8, 16, 4), "long": Sizes(13, 24, 5, batch=2, variates=2)}


@dataclass
class Captured:
    """A graph, the name of each input, and the arguments of each call of it."""

    gm: fx.GraphModule
    roles: list[str]
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Captured:
        return cls(gm, [name_of(node) for node in gm.graph.find_nodes(op="placeholder")])

    def recording(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """``compiled``, noting its arguments."""

        def run(*args: Any) -> Any:
            self.calls.append(args)
            return compiled(*args)

        return run

    def argument(self, role: str, call: int = -1) -> Any:
        return self.calls[call][self.roles.index(role)]

    def form(self, call: int = -1, agreeing: tuple[str, ...] = (INDEX,)) -> Form:
        return normal_form(self.gm, self.calls[call], self.roles, agreeing)


def decode(model: TotoBackbone, compiled: Any, sizes: Sizes) -> None:
    """A prefill and some decode steps, one patch each."""
    patch = CONFIG.patch_size
    cache = model.allocate_kv_cache(sizes.batch, sizes.variates, sizes.capacity * patch, "cpu", torch.float32)
    series = torch.randn(sizes.batch, sizes.variates, (sizes.context + sizes.decoded) * patch)
    with torch.no_grad():
        for patches in range(sizes.context, sizes.context + sizes.decoded + 1):
            part = series[..., : patches * patch].contiguous()
            inputs = {"input_padding_mask": torch.ones_like(part, dtype=torch.bool)}
            inputs["id_mask"] = torch.zeros_like(part, dtype=torch.int)
            compiled(part, **inputs, kv_cache=cache, scaling_prefix_length=sizes.context * patch)


def make(kv_cache: str) -> TotoBackbone:
    torch.manual_seed(0)
    return Toto(CONFIG, kv_cache).eval().model


@functools.cache
def rewritten(kv_cache: str, sizes: Sizes) -> Captured:
    """The decode graph after kvfix' rewrite, as it goes to the hand-off."""
    found: list[Captured] = []
    assemble = fxpass.backend.assemble

    def catch(plan: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(Captured.of(plan.gm))
        return found[-1].recording(assemble(plan, *args, **kwargs))

    torch._dynamo.reset()
    model = make(kv_cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fxpass.backend, "assemble", catch)
        patch.setattr(NumberInputs, "growing", property(lambda self: (set(), [])))  # a person gives the series no buffer
        with pytest.warns(fxpass.KvfixWarning, match="KV210"):  # so its length keeps products out of the core
            decode(model, kvfix(model), sizes)
    return found[-1]


@functools.cache
def by_hand(sizes: Sizes) -> Captured:
    """The decode graph of the hand edit, as Dynamo gives it."""
    found: list[Captured] = []

    def catch(gm: fx.GraphModule, _: Any) -> Any:
        found.append(Captured.of(gm))
        return found[-1].recording(gm.forward)

    torch._dynamo.reset()
    model = make("fixed_size")
    decode(model, torch.compile(model, backend=catch, fullgraph=True), sizes)
    return found[-1]


@pytest.mark.parametrize(
    "kv_cache, forecast", [("upstream", "short"), ("upstream", "long"), ("compile_friendly", "short")]
)
def test_rewritten_is_the_hand_edit(kv_cache: str, forecast: str):
    """At the first step of the decode graph and at the last one: a number that only one step has would show."""
    sizes = SIZES[forecast]
    mine, theirs = rewritten(kv_cache, sizes), by_hand(sizes)
    steps = min(len(mine.calls), len(theirs.calls))
    assert steps >= sizes.decoded - 1
    for call in (-steps, -1):
        assert mine.argument(SERIES, call).shape == theirs.argument(SERIES, call).shape
        assert difference(mine.form(call), theirs.form(call), NAMES) == ""


def test_agreement_is_what_the_layers_share_one_position_under():
    """Without the guard's word that all elements of the index tensor agree, they are not the same graph."""
    sizes = SIZES["short"]
    mine, theirs = rewritten("upstream", sizes), by_hand(sizes)
    text = difference(mine.form(agreeing=()), theirs.form(agreeing=()), NAMES)
    assert f"select.int(self={INDEX}, dim=0, index=1)" in text


# -- one node changed


@dataclass
class Pair:
    """Both graphs at one step, and the form of the hand edit."""

    mine: Captured
    theirs: Captured
    form: Form


@pytest.fixture(scope="module")
def pair() -> Pair:
    mine, theirs = rewritten("upstream", SIZES["short"]), by_hand(SIZES["short"])
    return Pair(mine, theirs, theirs.form())


def copied(captured: Captured) -> Captured:
    graph = fx.Graph()
    output = graph.graph_copy(captured.gm.graph, {})
    graph.output(output)
    return Captured(fx.GraphModule(captured.gm, graph), captured.roles, captured.calls)


def nodes(captured: Captured, target: Any) -> list[fx.Node]:
    return captured.gm.graph.find_nodes(op="call_function", target=target)


def before(node: fx.Node, target: Any, *args: Any) -> fx.Node:
    """A call of ``target`` in front of ``node``."""
    with node.graph.inserting_before(node):
        return node.graph.call_function(target, args)


def attention_over_cache(captured: Captured) -> fx.Node:
    """The first time-wise attention: the one with a mask that is made of the position."""
    return next(n for n in nodes(captured, aten.scaled_dot_product_attention.default) if "attn_mask" in n.kwargs)


def bound(captured: Captured) -> fx.Node:
    """``arange(S) < end``, under the mask of the first time-wise attention."""
    mask = attention_over_cache(captured).kwargs["attn_mask"]
    assert isinstance(mask, fx.Node)
    (compare,) = mask.all_input_nodes
    assert compare.target is aten.lt.Tensor
    return compare


def cleaning(captured: Captured) -> list[fx.Node]:
    return [n for n in attention_over_cache(captured).all_input_nodes if n.target is aten.where.self]


def bound_off_by_one(c: Captured) -> None:
    bound(c).target = aten.le.Tensor


def bound_a_constant(c: Captured) -> None:
    """The position of this step in the place of the position."""
    compare = bound(c)
    compare.target = aten.lt.Scalar
    compare.args = (compare.args[0], c.argument(SERIES).shape[-1] // CONFIG.patch_size)


def write_off_by_one(c: Captured) -> None:
    write = nodes(c, aten.index_copy_.default)[0]
    write.update_arg(2, before(write, aten.add.Tensor, write.args[2], 1))


def write_to_other_layer(c: Captured) -> None:
    layer = nodes(c, aten.index_copy_.default)[0].args[0]
    assert isinstance(layer, fx.Node) and layer.target is aten.select.int
    layer.update_arg(2, 1)


def write_missing(c: Captured) -> None:
    c.gm.graph.erase_node(nodes(c, aten.index_copy_.default)[1])


def write_of_values_to_keys(c: Captured) -> None:
    keys, values = nodes(c, aten.index_copy_.default)[:2]
    keys.update_arg(3, values.args[3])
    values.prepend(keys)


def snapshot_missing(c: Captured) -> None:
    """The bound reads the index tensor itself, which by then holds the new position."""
    compare = bound(c)
    end = compare.args[1]
    assert isinstance(end, fx.Node)
    index = next(n for n, role in zip(c.gm.graph.find_nodes(op="placeholder"), c.roles, strict=True) if "_current_idx" in role
                 and isinstance(n.meta["val"], torch.Tensor))  # fmt: skip
    live = before(compare, aten.select.int, index, 0, 0)
    compare.update_arg(1, before(compare, aten.add.Tensor, live, 1))


def index_off_by_one(c: Captured) -> None:
    """The index tensor advances by two."""
    advance = next(n for n in nodes(c, aten.copy_.default) if n.args[0].target is aten.select.int)  # type: ignore
    advance.update_arg(1, before(advance, aten.add.Tensor, advance.args[1], 1))


def offset_off_by_one(c: Captured) -> None:
    """The rotary position."""
    cos = nodes(c, aten.cos.default)[0]
    node = cos
    while node.target is not aten.arange.default:
        node = node.all_input_nodes[0]
    (positions,) = node.users
    positions.update_arg(1, before(positions, aten.add.Tensor, positions.args[1], 1))


def mask_missing(c: Captured) -> None:
    attention_over_cache(c).update_kwarg("attn_mask", None)


def mask_and_cleaning_missing(c: Captured) -> None:
    cleaning_missing(c)
    mask_missing(c)


def cleaning_by_another_mask(c: Captured) -> None:
    """Rows are zeroed that the mask does not hide."""
    first = cleaning(c)[0]
    compare = bound(c)
    shorter = before(first, aten.lt.Scalar, compare.args[0], 2)
    first.update_arg(0, before(first, aten.unsqueeze.default, shorter, -1))


def cleaning_with_ones(c: Captured) -> None:
    first = cleaning(c)[0]
    first.update_arg(2, before(first, aten.scalar_tensor.default, 1.0))


def tail_moved(c: Captured) -> None:
    """The new patch of the series, one step too early."""
    tail = next(n for n in nodes(c, aten.slice.Tensor) if isinstance(n.args[2], fx.Node))
    _, dim, start, end = tail.args
    tail.args = (tail.args[0], dim, before(tail, aten.sub.Tensor, start, 1), before(tail, aten.sub.Tensor, end, 1))


def constant_changed(c: Captured) -> None:
    """A number that has nothing to do with the cache: the degrees of freedom of the output start at 2."""
    node = next(n for n in nodes(c, aten.add.Tensor) if n.args[1] == 2.0)
    node.update_arg(1, 2.0000002)


def outputs_exchanged(c: Captured) -> None:
    output = c.gm.graph.output_node()
    (results,) = output.args
    output.args = ([results[1], results[0], *results[2:]],)  # type: ignore[index, misc]


CHANGES = [
    bound_off_by_one, bound_a_constant, write_off_by_one, write_to_other_layer, write_missing,
    write_of_values_to_keys, snapshot_missing, index_off_by_one, offset_off_by_one, mask_missing,
    mask_and_cleaning_missing, cleaning_by_another_mask, cleaning_with_ones, tail_moved, constant_changed,
    outputs_exchanged,
]  # fmt: skip


def changed(captured: Captured, change: Callable[[Captured], None]) -> Form:
    copy = copied(captured)
    change(copy)
    copy.gm.graph.lint()
    copy.gm.recompile()
    return copy.form()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_one_changed_node_is_seen(change: Callable[[Captured], None], pair: Pair):
    form = changed(pair.mine, change)
    assert not isomorphic(form, pair.form)
    text = difference(form, pair.form, NAMES)
    assert text.startswith("rewritten: ") and "\nby hand: " in text


def test_the_first_difference_is_named(pair: Pair):
    """What differs first on either side, with its operands and source line, and not all that follows from it."""
    text = difference(changed(pair.mine, bound_off_by_one), pair.form, NAMES).splitlines()
    position = "select.int(self=L['kv_cache']._current_idx, dim=0, index=0)"
    bound = f"(self=arange.default(end=16), other=add.Tensor(self={position}, alpha=1, other=1)): bool[16]"
    assert len(text) == 4
    assert text[0].startswith("rewritten:") and text[1].startswith(f"    le.Tensor{bound}")
    assert text[2].startswith("by hand:") and text[3].startswith(f"    lt.Tensor{bound}")
    assert "# attention.py:" in text[1] and "# fixed_attention.py:" in text[3]


def test_missing_clone_in_the_hand_edit_is_seen(pair: Pair):
    """`current_len` without its clone is a view, in which the mask sees the next position."""

    def clone_missing(c: Captured) -> None:
        clone = next(n for n in c.gm.graph.find_nodes(op="call_method", target="clone"))
        clone.replace_all_uses_with(clone.args[0])  # type: ignore[arg-type]
        c.gm.graph.erase_node(clone)

    assert "lt.Tensor" in difference(pair.mine.form(), changed(pair.theirs, clone_missing), NAMES)


# -- changes that the form allows


def cleaning_missing(c: Captured) -> None:
    for node in cleaning(c):
        node.replace_all_uses_with(node.args[1])  # type: ignore[arg-type]


def operands_exchanged(c: Captured) -> None:
    for target in (aten.add.Tensor, aten.mul.Tensor):
        for node in nodes(c, target):
            if all(isinstance(a, fx.Node) for a in node.args):
                node.args = node.args[::-1]


def masks_made_anew(c: Captured) -> None:
    """Every user of the bound gets its own copy."""
    compare = bound(c)
    for user in list(compare.users):
        user.replace_input_with(compare, before(user, aten.lt.Tensor, *compare.args))


def bound_of_other_layer(c: Captured) -> None:
    """The same number, from the index of the other layer: a guard says that they agree."""
    end = bound(c).args[1]
    assert isinstance(end, fx.Node)
    (start,) = end.all_input_nodes
    assert start.target is aten.select.int
    end.update_arg(0, before(end, aten.select.int, start.args[0], 0, 1))


def wider_index(c: Captured) -> None:
    """The bound in int32."""
    compare = bound(c)
    compare.update_arg(1, before(compare, aten.to.dtype, compare.args[1], torch.int32))


@pytest.mark.parametrize(
    "change",
    [cleaning_missing, operands_exchanged, masks_made_anew, bound_of_other_layer, wider_index],
    ids=lambda change: change.__name__,
)
def test_what_the_form_identifies(change: Callable[[Captured], None], pair: Pair):
    assert difference(changed(pair.mine, change), pair.form, NAMES) == ""


# -- the rules one by one, on functions of a few lines

F = torch.nn.functional
Fn = Callable[[Any, Any, Any], Any]


class Call(torch.nn.Module):
    """A function of ``x``, ``idx`` and ``seen``."""

    def __init__(self, fn: Fn) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Any, idx: Any, seen: Any) -> Any:
        return self.fn(x, idx, seen)


def form_of(fn: Fn) -> Form:
    """The form of a function of a float32[4, 3], an int64[4] and a bool[4]."""
    args = (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.bool))
    return normal_form(Call(fn), args, ["x", "idx", "seen"])


def twice(x: Any) -> Any:
    return x + x


def cleaned(x: Any, seen: Any, mask: Any) -> Any:
    return F.scaled_dot_product_attention(x, torch.where(seen[:, None], x, torch.scalar_tensor(0.0)), x, attn_mask=mask)


def plain(x: Any, mask: Any) -> Any:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def read_after_write(x: Any, idx: Any, seen: Any) -> Any:
    idx[1] = idx[0] + 1
    return x * idx[1], x * idx[-2]


def read_before_write(x: Any, idx: Any, seen: Any) -> Any:
    end, other = idx[0] + 1, idx[2].clone()
    idx[1] = end
    return x * end, x * other


def no_write(x: Any, idx: Any, seen: Any) -> Any:
    return x * (idx[0] + 1), x * idx[2]


SAME: dict[str, tuple[Fn, Fn]] = {
    "views that change nothing": (
        lambda x, idx, seen: x.view(4, 3)[:, :].clone().to(torch.float32) + 1,
        lambda x, idx, seen: x + 1,
    ),
    "width of integers": (lambda x, idx, seen: x * idx.to(torch.int32)[0], lambda x, idx, seen: x * idx[0]),
    "operands of add": (lambda x, idx, seen: x + idx[0], lambda x, idx, seen: idx[0] + x),
    "dims from the end": (lambda x, idx, seen: x.sum(-1)[-1], lambda x, idx, seen: x.sum(1)[3]),
    "bounds of slices": (lambda x, idx, seen: x[1:9] + 0, lambda x, idx, seen: x[-3:4] + 0),
    "equal values": (lambda x, idx, seen: x.cos() + x.cos(), lambda x, idx, seen: twice(x.cos())),
    "reads see writes": (read_after_write, read_before_write),
    "cleaning": (lambda x, idx, seen: cleaned(x, seen, seen[None]), lambda x, idx, seen: plain(x, seen[None])),
}
DIFFERENT: dict[str, tuple[Fn, Fn]] = {
    "operands of sub": (lambda x, idx, seen: x - idx[0], lambda x, idx, seen: idx[0] - x),
    "scaled add": (lambda x, idx, seen: x.add(x.cos(), alpha=2), lambda x, idx, seen: x.cos().add(x, alpha=2)),
    "precision": (lambda x, idx, seen: x.to(torch.float64).to(torch.float32), lambda x, idx, seen: x.clone()),
    "last bit": (lambda x, idx, seen: x + 0.1, lambda x, idx, seen: x + 0.10000000000000002),
    "sign of zero": (lambda x, idx, seen: torch.full((), 0.0) / x, lambda x, idx, seen: torch.full((), -0.0) / x),
    "bounds of slices": (lambda x, idx, seen: x[1:9] + 0, lambda x, idx, seen: x[-2:4] + 0),
    "another input": (lambda x, idx, seen: x * idx[0], lambda x, idx, seen: x * seen[0]),
    "association": (lambda x, idx, seen: (x + 1) + idx[0], lambda x, idx, seen: x + (idx[0] + 1)),
    "another spelling": (lambda x, idx, seen: idx < idx[0] + 1, lambda x, idx, seen: idx <= idx[0]),
    "write": (read_after_write, no_write),
    "cleaning by another mask": (
        lambda x, idx, seen: cleaned(x, seen, ~seen[None]),
        lambda x, idx, seen: plain(x, ~seen[None]),
    ),
    "cleaning by a mask of queries": (
        lambda x, idx, seen: cleaned(x, seen, seen[:, None]),
        lambda x, idx, seen: plain(x, seen[:, None]),
    ),
}


@pytest.mark.parametrize("rule", SAME)
def test_same(rule: str):
    first, second = SAME[rule]
    assert difference(form_of(first), form_of(second)) == ""


@pytest.mark.parametrize("rule", DIFFERENT)
def test_different(rule: str):
    first, second = DIFFERENT[rule]
    assert not isomorphic(form_of(first), form_of(second))


def test_random_ops_have_no_form():
    with pytest.raises(ValueError, match="random numbers"):
        form_of(lambda x, idx, seen: torch.bernoulli(x))
