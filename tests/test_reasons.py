"""Every reason has a program that gives it, and a section of docs/troubleshooting.md."""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tools_for_docs import troubleshooting_page
from torch import Tensor, fx
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fxpass
from fxpass import api, backend, reasons
from fxpass.analysis.rules import reductions
from fxpass.errors import Reasoned
from fxpass.execute.calls import assemble
from fxpass.execute.compilation import compilers
from fxpass.execute.compilation.regions import Region
from fxpass.execute.partition.split import split
from fxpass.graph import normal_form, unfit
from fxpass.graph.numbers import symbols
from fxpass.graph.postconditions import Broken
from fxpass.rewriting import sweep
from fxpass.tools.running import explained
from fxpass.torch_internals import features, patches
from fxpass.torch_internals.dynamo.sizes import capacity
from fxpass.torch_internals.precompile import guards, hooks

F = torch.nn.functional
ROOT = Path(__file__).parents[1]
CAPACITY = 16
STEPS = (8, 9)
Step = Callable[[Tensor, Tensor, int], Any]

SITES: dict[str, Step] = {
    "KV101": lambda k, v, p: k[:, :p].mode(dim=1).values,
    "KV102": lambda k, v, p: k[:, p - _large(v) : p].sum(1),
    "KV103": lambda k, v, p: (k[:, p + 8 : p + 9].mul_(2), k.sum(1))[1],
    "KV105": lambda k, v, p: k[:, 1:p].mul_(2),
    "KV107": lambda k, v, p: k[:, :p] * 2,
    "KV108": lambda k, v, p: k[:, p : p + 1],
    "KV109": lambda k, v, p: _stale(k, p),
    "KV110": lambda k, v, p: k[:, :p][:, -1:].mul_(2).sum(1),
    "KV111": lambda k, v, p: (torch._foreach_mul_([k[:, p : p + 1], k], 2), k.sum(1))[1],
    "KV112": lambda k, v, p: (k[:, :p].uniform_(), v.sum(1))[1],
    "KV113": lambda k, v, p: F.dropout(k[:, :p], 0.5).sum(1),
    "KV114": lambda k, v, p: F.scaled_dot_product_attention(k[:, :p], v, v, torch.rand(p, CAPACITY)).sum(1),
    "KV115": lambda k, v, p: (k[:, :p] * torch.rand(p, 1)).sum(1),
    "KV116": lambda k, v, p: k[:, :p].mT @ torch.rand(2, p, 3),
    "KV117": lambda k, v, p: k[:, : p // 2 * 2].unflatten(1, (2, -1)).sum(2),
    "KV118": lambda k, v, p: k[:, :p].chunk(2, 1)[0].sum(1),
    "KV119": lambda k, v, p: k[:, :p].argmax(),
    "KV120": lambda k, v, p: k[:, :p].topk(2, 1).indices,
    "KV121": lambda k, v, p: k[:, :p].int().softmax(1, dtype=torch.float32).sum(1),
    "KV122": lambda k, v, p: F.conv1d(torch.ones(1, 4, 4), k[0, :p, :, None]).sum(1),
    "KV123": lambda k, v, p: F.layer_norm(k[:, :p], (p, 4)).sum(1),
    "KV124": lambda k, v, p: k[:, :p].new_ones(p * 3).sum(),
    "KV125": lambda k, v, p: k[:, :p][torch.tensor([0, 1]), :, torch.tensor([0, 1])].sum(1),
    "KV126": lambda k, v, p: torch.cat([k[:, :p], torch.empty(0)], 1).sum(1),
    "KV127": lambda k, v, p: torch.linspace(0, p, 4) + k[:, :p].sum(1),
    "KV128": lambda k, v, p: k[:, : int(p**0.5) + 1].sum(1),
    "KV129": lambda k, v, p: F.pad(k[:, :p], (0, 0, p, 0)).sum(1),
    "KV130": lambda k, v, p: k[:, torch.arange(p)].sum(1),
}


def _large(v: Tensor) -> Any:
    """A number that a tensor holds, of which Dynamo knows no value."""
    count = (v > 2).sum().item()
    torch._check(count >= 0)
    return count


def _stale(k: Tensor, p: int) -> Tensor:
    row = k[:, p : p + 1]
    k.mul_(2)
    return row * 1


def heard(call: Callable[[], Any]) -> list[str]:
    """All that is said while ``call`` runs: warnings, reports, and the error that it raises."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except (Reasoned, fxpass.KvfixError) as error:
            said.append(str(error))
    said += [str(w.message) for w in caught] + [f for r in fxpass.reports() for f in r.faults]
    for report in fxpass.reports():
        said += [*(s.reason for s in report.sites), report.unfit, report.unbuffered, report.ended]
        said += [*report.outside, *report.beside, *report.notes, *report.pinned]
    return [line for text in said for line in text.removeprefix("kvfix: ").splitlines()]


def decode(step: Step = lambda k, v, p: k[:, :p].sum(1), **options: Any) -> None:
    """Call ``step``, compiled and not, at two positions."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "verify": 0, **options})
    k, v = torch.rand(2, 2, CAPACITY, 4)
    mine = k.clone(), v.clone()
    for p in STEPS:
        torch.manual_seed(p)
        expected = step(k, v, p).clone()
        torch.manual_seed(p)
        torch.testing.assert_close(compiled(*mine, p), expected)


def ids(said: list[str]) -> set[str]:
    """The ids of the reasons among what is ``said``."""
    return {reason.id for text in said if (reason := reasons.of(text)) is not None}


@torch.no_grad()
@torch._dynamo.config.patch(capture_scalar_outputs=True)
@pytest.mark.parametrize("id", SITES)
def test_a_site_says_why(id: str) -> None:
    said = heard(lambda: decode(SITES[id]))
    assert id in ids(said), said


def with_grad() -> None:
    weight = torch.ones(4, requires_grad=True)
    with torch.enable_grad():
        decode(lambda k, v, p: (k[:, :p] * weight).sum(1))


def autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        decode()


def changes_a_setting() -> None:
    def step(k: Tensor, v: Tensor, p: int) -> Tensor:
        torch.set_default_dtype(torch.float32)
        return k[:, :p].sum(1)

    decode(step)


def unseen() -> None:
    with FakeTensorMode():
        held = torch.ones(2)
    graph = fx.Graph()
    graph.output(graph.get_attr("held"))
    module = fx.GraphModule({"held": held}, graph)
    unfit.refuse_attributes(module)


def failing(owner: Any, name: str, error: Exception) -> Callable[[], None]:
    def program() -> None:
        with mock.patch.object(owner, name, side_effect=error):
            decode()

    return program


def growing_rows() -> None:
    """As many as a chunk has that is worked on, of another length on each call."""

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        return k[:, p : p + x.shape[0]].sum(1) + (x @ x.mT).sum()

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for p in STEPS:
        compiled(torch.rand(2, CAPACITY), torch.rand(p - 5, 4), p)


def too_few() -> None:
    with mock.patch.object(reductions, "guarded", return_value=False):
        decode(lambda k, v, p: k[:, :p].amax(1))


def many_capacities() -> None:
    graph = make_fx(lambda k: (k @ k.mT,), tracing_mode="symbolic")(torch.rand(CAPACITY, 4))
    sizes = {s for n in graph.graph.nodes for s in symbols(n.meta.get("val"))}
    region = Region(split(graph, sizes)[0], compilers.compiler("eager", {}))
    with torch._dynamo.config.patch(recompile_limit=3):
        for capacity in range(CAPACITY, CAPACITY + 4):
            region([torch.rand(capacity, 4)])


def aliased_inputs() -> None:
    """As where AOTAutograd takes a base for two inputs that are views of it."""
    graph = fx.Graph()
    graph.output((graph.placeholder("a"),))

    def compile_fx(gm: Any, fakes: Any, inner_compile: Any, config_patches: Any) -> Any:
        return inner_compile(gm, [*fakes, torch.ones(1)])

    with mock.patch.multiple("fxpass.torch_internals.inductor.names", compile_fx=compile_fx, compile_fx_inner=mock.Mock()):
        compilers._whole(fx.GraphModule(torch.nn.Module(), graph), [torch.ones(1)], [0], {})


def not_used() -> None:
    artifacts = {"one": hooks.Artifact("one", None)}
    hooks._use(mock.Mock(side_effect=RuntimeError("another version")), mock.MagicMock(), artifacts)


def another_torch() -> None:
    feature = features.Feature.COUNTING
    with mock.patch.dict(features._given_up, {feature: "gone"}), mock.patch.object(features, "_warned", set()):
        features.lost.cache_clear()
        assert not features.holds(feature)
    features.lost.cache_clear()


def hook() -> None:
    owner = type("Owner", (), {"double": lambda self: 2})
    with mock.patch.object(patches, "_undo", []):
        patches.patch_attribute(owner, "double", lambda stock, self: {}["a bug"])
        assert owner().double() == 2  # type: ignore[attr-defined]


def differs() -> None:
    with mock.patch.object(assemble, "compiler", lambda *given: lambda gm, *rest: lambda *args: [a + 1 for a in gm(*args)]):
        decode(verify=1)


def grows() -> None:
    step = torch.compile(
        lambda k, x, p: k[:, :p].mT @ k[:, :p] + (x @ x.mT).sum(), backend="kvfix", options={"compiler": "eager"}
    )
    k = torch.rand(2, CAPACITY, 2)
    for p in STEPS:
        step(k, torch.rand(p, 2), p)


def grows_whole() -> None:
    """A series as long as a position says, all of which goes through a product."""

    def step(x: Tensor, p: int) -> Tensor:
        assert x.shape[1] == p
        return (x @ x[0, :2].mT).sum(1) + p

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for p in STEPS:
        compiled(torch.rand(2, p, 2), p)


def restless() -> None:
    """The length of a series keeps still while a graph is made, and grows from then on."""
    step = torch.compile(lambda k, x, p: k[:, :p].mT @ k[:, :p] + x.sum(), backend="kvfix", options={"compiler": "eager"})
    for dtype, lengths in ((torch.float32, [5, 6, 6]), (torch.float64, [6, 6, *range(7, 20)])):
        k = torch.rand(2, 64, 4, dtype=dtype)
        for p, length in enumerate(lengths, 2):
            step(k, torch.rand(length, dtype=dtype), p)


def at_a_float() -> None:
    step = torch.compile(lambda k, t: k[:, : int(t)].sum(1), backend="kvfix", options={"compiler": "eager"})
    for t in (8.0, 9.0, 10.0):
        step(torch.rand(2, CAPACITY, 4), t)


def ragged() -> None:
    """Tensors of several lengths in one, which Dynamo traces and `make_fx` does not."""

    def step(k: Tensor, v: Tensor, p: int) -> Tensor:
        rows = torch.nested.nested_tensor([k[0, :p], k[1, : p + 1]], layout=torch.jagged)
        return rows.values().sum(0) + v.sum()

    decode(step)


def breaks() -> None:
    def step(k: Tensor, v: Tensor, p: int) -> Tensor:
        rows = k[:, :p].sum(1)
        torch._dynamo.graph_break()
        return rows * 2

    decode(step)


def cut_between() -> None:
    sliced = torch.compiler.disable(lambda k, p: k[:, :p])
    decode(lambda k, v, p: sliced(k, p) @ v[0, :4])


def slices_of_the_caller() -> None:
    step = torch.compile(lambda k: (k @ k.mT).sum(1), backend="kvfix", options={"compiler": "eager"})
    k = torch.zeros(2, 16, 4)
    for p in range(3, 8):
        k[:, p] = 1
        step(k[:, : p + 1])


def excluded() -> None:
    attended = torch.compiler.disable(lambda k, p: k[:, :p].sum(1))
    decode(lambda k, v, p: attended(k, p) @ v[0, :4])


def breaks_in_a_loop() -> None:
    def step(k: Tensor, v: Tensor, p: int) -> Tensor:
        for rows in (k, v):
            out = rows[:, :p].sum(1)
            torch._dynamo.graph_break()
        return out

    decode(step)


def again() -> None:
    """What an explanation says of a graph, said as a warning."""
    found = explained(decode)
    warnings.warn("\n".join(found.why(found.reports[-1])), stacklevel=1)


def a_graph_for_each() -> None:
    step = torch.compile(lambda k, p: k[:, list(range(p))].sum(1), backend="kvfix", options={"compiler": "eager"})
    for p in (*STEPS, CAPACITY):
        step(torch.rand(2, CAPACITY), p)


def no_more_graphs() -> None:
    with torch.compiler.config.patch(recompile_limit=2):
        a_graph_for_each()


def read_whole() -> None:
    """What lies behind a position is as long as the buffer, but for that."""
    step = torch.compile(lambda k, p: k[:, p:].sum(1), backend="kvfix", options={"compiler": "eager"})
    for p in STEPS:
        step(torch.rand(2, 8 * CAPACITY), p)


def recorded() -> None:
    """A core on a CPU, put together as if it were recorded."""

    def step(k: Tensor, index: Tensor) -> Tensor:
        end = int(index[0]) + 1
        index[0] = end
        return k[:, :end].mT @ k[:, :end]

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "kernels": False, "verify": 0})
    k, index = torch.rand(2, CAPACITY, 4), torch.tensor([3])
    with mock.patch.object(backend, "is_recorded", return_value=True):
        for _ in STEPS:
            compiled(k, index)


def grow(
    step: Callable[[Tensor, Tensor], Any] = lambda k, x: (k.sum(1), k),
    lengths: Iterable[int] = (),
    patch: Any = None,
    join: Callable[[Tensor, Tensor], Tensor] = lambda k, x: torch.cat([k, x], 1),
) -> None:
    """Call ``step`` on a cache that one more row is joined to at each call, of the ``lengths`` if there are any."""
    compiled = torch.compile(lambda k, x: step(join(k, x), x), backend="kvfix", options={"compiler": "eager"})
    k = torch.rand(2, 3, 4)
    with patch or contextlib.nullcontext():
        for length in lengths or range(3, 8):
            _, k = compiled(k if not lengths else torch.rand(2, length, 4), torch.rand(2, 1, 4))


def written_beside() -> None:
    """Join rows to a cache, and write to a tensor as long that comes to lie in its memory."""
    compiled = torch.compile(
        lambda k, other, x: (other.add_(1), torch.cat([k, x], 1))[1], backend="kvfix", options={"compiler": "eager"}
    )
    k = torch.rand(2, 3, 4)
    for call in range(5):
        k = compiled(k, k[:] if call == 4 else torch.rand_like(k), torch.rand(2, 1, 4))


OTHERS: dict[str, Callable[[], None]] = {
    "KV001": with_grad,
    "KV002": autocast,
    "KV003": lambda: decode(lambda k, v, p: torch.vmap(lambda row: row * 2)(k[:, :p].sum(1))),
    "KV004": lambda: decode(lambda k, v, p: torch.cond(v.sum() > 0, lambda x: x * 2, lambda x: x * 3, (k[:, :p].sum(1),))),
    "KV005": failing(normal_form, "retrace", DataDependentOutputException(torch.ops.aten.item.default)),
    "KV006": unseen,
    "KV007": failing(api, "check_graph", Broken("the number of outputs changed")),
    "KV008": failing(api, "rewrite_graph", KeyError("a bug")),
    "KV009": failing(Region, "_compile", KeyError("a bug")),
    "KV011": ragged,
    "KV012": breaks_in_a_loop,
    "KV013": changes_a_setting,
    "KV104": growing_rows,
    "KV010": lambda: decode(rewrite=False),
    "KV106": too_few,
    "KV131": at_a_float,
    "KV190": failing(sweep, "rewrite_read", KeyError("a bug")),
    "KV201": lambda: grow(lambda k, x: (k.mode(1).values, k)),
    "KV202": lambda: grow(lengths=(3, 5, 9, 2, 7, 4, 8, 6)),
    "KV203": lambda: grow(patch=mock.patch.object(capacity.Conditions, "hold", return_value=False)),
    "KV204": lambda: grow(patch=mock.patch.object(capacity, "_holds", return_value=False)),
    "KV205": grows_whole,
    "KV206": lambda: grow(lambda k, x: (k @ k[0, :2].mT, k), join=lambda k, x: torch.cat([x, k], 1)),
    "KV207": written_beside,
    "KV210": grows,
    "KV211": restless,
    "KV212": lambda: decode(lambda k, v, p: k[:, :p].mode(1).values + (v[:, :p] @ v[:, :p].mT).sum((1, 2))[:, None]),
    "KV213": cut_between,
    "KV214": excluded,
    "KV215": slices_of_the_caller,
    "KV301": breaks,
    "KV302": again,
    "KV303": a_graph_for_each,
    "KV304": no_more_graphs,
    "KV401": many_capacities,
    "KV402": aliased_inputs,
    "KV403": recorded,
    "KV404": recorded,
    "KV405": recorded,
    "KV406": read_whole,
    "KV501": lambda: guards.warn_not_cached(ValueError("no")),
    "KV502": not_used,
    "KV601": another_torch,
    "KV602": hook,
    "KV701": differs,
}


@torch.no_grad()
@pytest.mark.parametrize("id", OTHERS)
def test_all_else_says_why(id: str) -> None:
    said = heard(OTHERS[id])
    assert id in ids(said), said


def test_every_reason_has_a_program() -> None:
    assert sorted([*SITES, *OTHERS]) == sorted(reasons.REASONS)
    named = [value for value in vars(reasons).values() if isinstance(value, reasons.Reason)]
    assert sorted(reason.id for reason in named) == sorted(reasons.REASONS)


def test_the_page_is_the_list() -> None:
    assert (ROOT / "docs" / "troubleshooting.md").read_text() == troubleshooting_page()


def test_all_that_is_raised_has_a_reason() -> None:
    """A refusal is made of one, and what warns goes through `warn`, which takes one."""
    for file in sorted((ROOT / "fxpass").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("Refusal", "NoRule", "Unfit", "warn"):
                assert ast.unparse(node.args[0]).startswith("reasons."), f"{file}:{node.lineno}"
            assert name != "warnings.warn" or file.name in ("errors.py", "store.py"), f"{file}:{node.lineno}"


def test_each_reason_has_a_name_of_its_own() -> None:
    """Two of one name are one: whoever asks for the first gives the fields of another message."""
    assert sorted(r.id for r in vars(reasons).values() if isinstance(r, reasons.Reason)) == sorted(reasons.REASONS)
