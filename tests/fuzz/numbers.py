"""Positions outside of slices: in tensor arithmetic, tables, branches, assertions, loops, and as Python values."""

from __future__ import annotations

from .sketch import Sketch

SCALARS = {
    "x + {s}": 2, "x * {e}": 1, "x / ({s} + 1)": 1, "x - {e} % 3": 0.7, "x.sum() + torch.arange({s}, {e})": 1.5,
    "x.sum() * (torch.arange(n) + {s})": 1, "torch.full((2,), int({s})) + x.sum()": 0.7, "x + float({s})": 0.5,
    "x * {s} ** 2": 0.5, "torch.tensor({s}) + x": 0.4, "x + max({s}, 2)": 0.5, "x * ({s} > 2)": 0.5,
    "({s} or 7) * x": 0.7, "x + ({s} and 3)": 0.5, "x.roll({s}, -1)": 0.5,
    "torch.where(torch.arange(S) < {e}, 1.0, 0.0) + x.sum()": 1, "(torch.arange(S) == {s}).float()": 0.7,
    "x + (1 if {s} > 3 else -1)": 0.7, "x * bool({s})": 0.5, "x * (1 < {s} < 4)": 0.5, "x + not_({s})": 0.3,
    "{s} - x": 0.5, "x.clamp(max={s} * 0.1)": 0.4, "x.sum().to(torch.int32) + {s}": 0.5,
    "torch.zeros(3) + {s} // 2": 0.5, "x ** ({s} % 2 + 1)": 0.3, "x * math.sqrt({e})": 0.4,
    "x / math.log({e} + 1)": 0.3, "[x, -x][{s} % 2]": 0.4, "torch.pow(0.5, torch.arange({s}, {e}))": 0.4,
    "x.mul({s}).add({e})": 0.4, "torch.linspace(0, 1, S)[{s}] + x": 0.7, "torch.ones({e}).sum() + x": 0.5,
    "torch.arange({e}).float().mean() + x": 0.5, "x + torch.tensor([{s}, {e}]).sum()": 0.3,
    "x * ({s} in (3, 5))": 0.4, "x + int(f'{{{s}}}')": 0.2, "x * len(f'{{{e}}} rows')": 0.2,
    "torch.remainder(x, {e})": 0.3, "torch.add(x, x, alpha={s})": 0.4,
}  # fmt: skip
TABLES = {
    "c.table[{s}:{e}]": 3, "c.table[{s}]": 1, "c.table[torch.arange({s}, {e})]": 1, "c.table.narrow(0, {s}, n)": 1,
    "torch.nn.functional.embedding(torch.arange({s}, {e}), c.table)": 1, "c.table.select(0, {s})": 0.7,
    "c.table[{e} - 1]": 0.7, "c.table.index_select(0, torch.arange(n) + {s})": 0.7, "c.table[:, 1][{s}]": 0.4,
    "c.table.T[:, {s}:{e}]": 0.7, "c.table[{s}:{s} + 2]": 0.7, "c.table[:{e}].sum(0)": 0.7,
    "c.table[None, {s}:{e}]": 0.5, "c.table[{e} // 2]": 0.4, "series[{s}:]": 0.7, "series[{s}]": 0.4,
    "series[-n:]": 0.4, "series[:{e}].sum()": 0.4, "series[{s}:{e}] * 2": 0.4,
}  # fmt: skip
CONTROL = {
    "": 40, "assert {e} <= S": 3, "assert {e} <= S, f'{{{e}}} rows do not fit'": 1, "if {s} == 0:\n    x = x * 2": 2,
    "if {e} > 4:\n    x = x + 1": 1.5, "if {s} and n == 1:\n    x = x - 1": 1, "if not {s}:\n    x = -x": 0.7,
    "if {e} > S:\n    raise ValueError('full')": 1, "j = 0\nwhile j < {s}:\n    j += 4\nx = x + j": 0.7,
    "for j in range(min({s}, 2)):\n    x = x + j": 0.5, "x = x * 2 if {s} % 2 else x": 1,
    "if {s} >= 3 or n > 1:\n    x = x * 0.5": 0.7, "w = {s} or 7\nx = x * w": 0.5,
    "x = x + ({s} > 1 and {e} < 6)": 0.5, "if {e} == S:\n    x = x + 3": 0.7, "if 1 < {s} < 4:\n    x = x + 2": 0.7,
    "k = {s} if {s} < 3 else 3\nx = x * k": 0.5,
    "if {s} in (2, 4, 7):\n    x = x + 1": 0.7, "note = f'row {{{s}}} of {{S}}'": 0.7,
}  # fmt: skip
INDEX_CONTROL = {
    "": 40, "if c.idx[0] > 2:\n    x = x + 1": 1.5, "assert c.idx[-1] + n <= S": 1.5,
    "if c.idx.max() == 0:\n    x = x * 2": 1, "x = x * ((c.idx[0] - 1) or 7)": 1, "if c.idx[0]:\n    x = x - 1": 1,
    "x = torch.where(1 < c.idx[0] < 4, x, -x)": 1, "if (c.idx < 3).all():\n    x = x + 2": 0.5,
    "w = c.idx[0] and 3\nx = x * w": 0.7, "if torch.equal(c.idx, c.idx):\n    x = -x": 0.3, "x = x + c.idx[0]": 0.7,
    "x = x * c.idx.sum()": 0.5, "if not c.idx[0]:\n    x = x + 5": 0.7, "while c.idx[0] > S:\n    x = x + 1": 0.3,
}  # fmt: skip


def control(sk: Sketch) -> None:
    """Branches and assertions on the first layer's position."""
    code = sk.choices.weighed("control", CONTROL).format(s="s0", e="e0")
    sk.body += code.split("\n") if code else []
    index = sk.choices.weighed("index_control", INDEX_CONTROL)
    if index and any(line.startswith("c.idx = ") for line in sk.state):
        sk.body += index.split("\n")


def scalars(sk: Sketch) -> None:
    """Results made of a position as a number, and of a row or more of tables."""
    for i in range(sk.choices.pick("scalars", (0, 1, 2), (6, 3, 1))):
        sk.outs.append(sk.let(sk.choices.weighed(f"scalar{i}", SCALARS).format(s="s0", e="e0"), "o"))
    if sk.choices.chance("tables", 0.25):
        code = sk.choices.weighed("table", TABLES)
        if "series" in code:
            sk.given["series"] = "torch.arange((p + n) * 2.0).view(p + n, 2)"
        else:
            sk.keep("c.table = torch.arange((S + 4) * 2.0).view(S + 4, 2)")
        sk.outs.append(sk.let(code.format(s="s0", e="e0") + " + x.sum()", "o"))
