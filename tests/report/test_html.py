"""The page of a report, without a browser: its places, groups, paths and data, and that no text becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from pages import MARKUP, deep, reports
from typer.testing import CliRunner

import fxpass
from fxpass import Report
from fxpass.report.html.folds import Group, Label, SlotPlace, in_groups, slots_in
from fxpass.report.html.model import page_data
from fxpass.report.html.slots import Slot, slots
from fxpass.tools.command_line import app


def graph(*nodes: str) -> nx.DiGraph:
    """Each node is ``name:line``, ``name:line:op`` or ``name:line:op:dtype``."""
    made = nx.DiGraph()
    for node in nodes:
        name, line, op, dtype = (*node.split(":"), *["", "f32"][len(node.split(":")) - 2 :])[:4]
        made.add_node(name, source=line, module=(), kind="op", op=f"aten.{op or name}", type=f"{dtype}[2]")
    return made


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (["a:1", "b:2"], ["a:1", "b:2"], [("a", "a"), ("b", "b")]),
        (["a:1", "b:2"], ["a:1", "c:2", "b:2"], [("a", "a"), (None, "c"), ("b", "b")]),
        (["a:1", "s:2", "b:3"], ["a:1", "t:2", "b:3"], [("a", "a"), ("s", "t"), ("b", "b")]),
        (["a:1", "s:2", "b:3"], ["a:1", "t:9", "b:3"], [("a", "a"), ("s", None), (None, "t"), ("b", "b")]),
        (["s:2:slice", "p:2:copy_"], ["q:2:add:i64", "r:2:index_copy_"], [("s", None), (None, "q"), ("p", "r")]),
        (["d:2:sdpa"], ["w:2:where", "e:2:sdpa.default"], [(None, "w"), ("d", "e")]),
        ([], ["a:1"], [(None, "a")]),
    ],
)
def test_slots(before: list[str], after: list[str], expected: list[Any]) -> None:
    found = slots(graph(*before), graph(*after))
    assert sorted(found, key=str) == sorted((Slot(*pair) for pair in expected), key=str)
    for side, nodes in ((0, before), (1, after)):
        assert [slot[side] for slot in found if slot[side]] == [node.split(":")[0] for node in nodes]


def module(*names: str) -> tuple[Label, ...]:
    return tuple(Label(name, "module") for name in names)


def names(items: list[int | Group]) -> list[Any]:
    return [item if isinstance(item, int) else (item.label.name, names(item.inside)) for item in items]


def fold(paths: list[tuple[Label, ...]], edges: list[tuple[int, int]], signature: str = "") -> list[Any]:
    items = in_groups({i: SlotPlace(path, signature or str(i)) for i, path in enumerate(paths)}, edges)
    assert sorted(slot for item in items for slot in slots_in(item)) == list(range(len(paths)))
    return names(items)


def test_modules_are_groups() -> None:
    paths = [module("a"), module("a", "a.b"), (), module("a", "a.b"), module("c")]
    assert fold(paths, [(0, 1), (1, 3), (3, 4)]) == [("a", [0, ("a.b", [1, 3])]), 2, ("c", [4])]


def test_a_module_that_would_wait_for_itself_is_in_pieces() -> None:
    """It is called twice, and what lies between takes the first result and makes what the second call takes."""
    assert fold([module("a"), module("b"), module("a")], [(0, 1), (1, 2)]) == [("a", [0]), ("b", [1]), ("a", [2])]
    assert fold([module("a"), (), module("a")], [(0, 1), (1, 2)]) == [("a", [0]), 1, ("a", [2])]
    assert fold([module("a"), (), module("a")], [(0, 1), (0, 2)]) == [("a", [0, 2]), 1]


def test_layers_that_are_alike_are_a_run() -> None:
    paths = [module(f"layers.{i}") for i in range(5)]
    chain = [(i, i + 1) for i in range(4)]
    assert fold(paths, chain, "same") == [("layers.0 to layers.4", [(f"layers.{i}", [i]) for i in range(5)])]
    assert fold(paths, chain) == [(f"layers.{i}", [i]) for i in range(5)]


def test_many_ops_in_no_module_are_cut_into_stretches() -> None:
    found = fold([()] * 130, [(i, i + 1) for i in range(129)])
    assert [name for name, _ in found] == ["ops 1 to 40", "ops 41 to 80", "ops 81 to 120", "ops 121 to 130"]


def node(slot: dict[str, Any], side: str) -> Any:
    """What stands at a slot; None where nothing does."""
    return slot.get("both") or slot[side]


def test_the_data_of_a_step() -> None:
    data = page_data(reports()[-1], ["KV999 why"])
    assert data["reasons"] == ["KV999 why"] and [part["name"] for part in data["parts"]] == ["prologue", "core", "epilogue"]
    assert [group["name"] for group in data["groups"] if group["kind"] == "part"] == ["prologue", "core", "epilogue"]
    assert any(MARKUP in group["name"] for group in data["groups"])
    sites = {(site["kind"], site["decision"]): site for site in data["sites"]}
    read = sites["read", "rewritten"]
    assert len(read["places"]) == 2 and data["lines"][read["line"]][1] == "rows = self.k[:, : start + 1]"
    first = read["places"][0]
    before, after = ([node(data["slots"][i], side) for i in first[side]] for side in ("before", "after"))
    assert {"aten.slice", "aten.scaled_dot_product_attention"} <= {made["op"] for made in before}
    assert {"aten.lt", "aten.arange"} <= {made["op"] for made in after} and "aten.slice" not in {made["op"] for made in after}
    assert data["slots"][first["slot"]]["role"] == "slice" and "pos + 1" in str(before)
    assert sites["read", "refused"]["reason"].startswith("KV101")
    assert {slot.get("role") for slot in data["slots"]} == {"slice", "mask", "position", "buffer", None}
    for side in ("before", "after"):
        for slot in data["slots"]:
            shown = node(slot, side)
            assert shown is None or all(node(data["slots"][use], side) for use in shown["uses"])


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    fxpass.html([*reports(), Report(f"{MARKUP}\u2028&amp;")], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<img" not in text and "\u2028" not in text and text.count("</script>") == 3 and "<!--" not in text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert data["graphs"][-1]["name"] == f"{MARKUP}\u2028&amp;"
    assert any(MARKUP in group["name"] for group in data["graphs"][-2]["groups"])


def test_one_report_none_and_one_without_a_graph(tmp_path: Path) -> None:
    fxpass.html(Report("graph 7", unfit="KV001 grad is enabled"), str(tmp_path / "page.html"))
    assert "KV001 grad is enabled" in (tmp_path / "page.html").read_text()
    with pytest.raises(ValueError, match="no report to show"):
        fxpass.html([], tmp_path / "none.html")


def test_layers_of_a_deep_model_are_folded() -> None:
    data = page_data(deep(48, 90), [])
    assert len(data["slots"]) > 48 * 90
    outer = [group["name"] for group in data["groups"] if group["parent"] <= 0]
    assert outer == ["core", "layers.0 to layers.47"]


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_the_command_line(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["explain", "cli_targets:good", "--html", str(page)])
    assert result.exit_code == 0 and "rewritten" in result.stdout
    assert "self.rows[start : start + 1] = x" in page.read_text()
    result = CliRunner().invoke(app, ["explain", "cli_targets:good", "--html", str(tmp_path / "no" / "page.html")])
    assert result.exit_code == 2 and "cannot write" in result.stderr


@torch.no_grad()
def test_the_flow_of_what_grows_leads_from_the_join() -> None:
    """The read of its buffer stands where the tensor was joined, and the mask before what takes that."""

    def step(past: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        past["k"] = torch.cat([past["k"], x], 1)
        return torch.nn.functional.scaled_dot_product_attention(x, past["k"], past["k"])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "verify": 0})
    past = {"k": torch.zeros(2, 3, 4)}
    for _ in range(4):
        compiled(past, torch.ones(2, 1, 4))
    data = page_data(fxpass.reports()[-1], [])
    (read,) = (site for site in data["sites"] if site["kind"] == "read")
    (place,) = read["places"]
    called = {}
    for side in ("before", "after"):
        shown = [data["slots"][i] for i in place[side]]
        called[side] = {(slot.get(side) or slot["both"])["op"] for slot in shown}
    assert {"aten.cat", "aten.scaled_dot_product_attention"} <= called["before"]
    assert {"aten.lt", "aten.index_copy_"} <= called["after"] and "aten.cat" not in called["after"]
