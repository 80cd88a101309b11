"""Where a position comes from: ``s``, the first new row of a layer, and how the step moves it on."""

from __future__ import annotations

import re

from .sketch import Sketch

_REMAINDER = "divmod(s, 64)[1]"

KINDS = {
    "arg": 3, "element": 5, "zerod": 2, "attr": 2, "list": 1, "tolist": 1, "bounds": 1.5, "max": 1, "min": 0.5,
    "sum": 0.5, "two": 1, "per_row": 1, "arg_tensor": 1, "arg_range": 1, "doubled": 0.5,
}  # fmt: skip
ARITHMETIC = {
    "s": 12, "s * 2 // 2": 1, "s + 3 - 3": 1, "min(s, S)": 1, "max(s, 0)": 1, "s % 64": 1, "abs(s)": 0.5,
    _REMAINDER: 0.5, "(s << 1) >> 1": 0.5, "int(s)": 0.5, "s // 1": 0.5, "(s + s) // 2": 0.5,
}  # fmt: skip
_READ = {
    "int(c.idx[{i}])": 2, "c.idx[{i}].item()": 3, "int(c.idx[{i}].item())": 3, "c.idx.select(0, {i}).item()": 0.5,
    "int(c.idx.view(-1)[{i}])": 0.5, "c.idx[{i}:][0].item()": 0.5, "c.idx.unbind(0)[{i}].item()": 0.5,
}  # fmt: skip
_MOVE = {"c.idx[{i}] += n": 3, "c.idx[{i}] = e{i}": 3, "c.idx[{i}].add_(n)": 1, "c.idx[{i}:{i} + 1] += n": 1,
         "c.idx[{i}].fill_(e{i})": 1, "c.idx[{i}] = c.idx[{i}] + n": 1}  # fmt: skip
_MOVE_ALL = {"c.idx += n": 3, "c.idx.add_(n)": 1, "c.idx.copy_(c.idx + n)": 1, "c.idx = c.idx + n": 1}


def origin(sk: Sketch, layers: int) -> list[list[str]]:
    """For each layer the lines that define ``s`` and ``e``; what moves the positions goes to ``sk.after``."""
    pick = sk.choices
    kind = pick.weighed("origin", KINDS)
    arithmetic = pick.weighed("arithmetic", ARITHMETIC) if kind != "bounds" else "s"
    starts = _starts(sk, kind, layers)
    lines = []
    for i, (start, end) in enumerate(starts):
        own = [f"s{i} = {start}"]
        if arithmetic != "s":
            own.append(f"s{i} = " + re.sub(r"\bs\b", f"s{i}", arithmetic))
        lines.append([*own, f"e{i} = {end.format(i=i)}"])
    return lines


def _starts(sk: Sketch, kind: str, layers: int) -> list[tuple[str, str]]:
    pick, plain = sk.choices, "s{i} + n"
    if kind == "arg":
        sk.given["p"] = "p"
        return [("p", plain)] * layers
    if kind == "attr":
        sk.keep("c.pos = 0")
        sk.seek.append("c.pos = p")
        sk.assigns = True
        sk.after.append(pick.pick("move", ("c.pos += n", "c.pos = e0")))
        return [("c.pos", plain)] * layers
    if kind == "list":
        sk.keep(f"c.lens = [0] * {layers}")
        sk.seek.append(f"c.lens[:] = [p] * {layers}")
        sk.assigns = True
        sk.after += [f"c.lens[{i}] += n" for i in range(layers)]
        return [(f"c.lens[{i}]", plain) for i in range(layers)]
    if kind == "arg_tensor":
        form = pick.pick("arg_tensor", ("torch.tensor([p])", "torch.tensor(p)", "torch.tensor([p], dtype=torch.int32)"))
        sk.given["at"] = form
        return [("at.item()" if form == "torch.tensor(p)" else "int(at[0])", plain)] * layers
    if kind == "arg_range":
        sk.given["at"] = "torch.arange(p, p + n)"
        return [("int(at[0])", pick.pick("end", (plain, "int(at[-1]) + 1")))] * layers
    return _in_tensor(sk, kind, layers)


def _in_tensor(sk: Sketch, kind: str, layers: int) -> list[tuple[str, str]]:
    """The position is in an index tensor of the cache, which the step moves on."""
    pick, plain = sk.choices, "s{i} + n"
    dtype = pick.pick("idx.dtype", ("int64", "int32"), (3, 1))
    if kind == "zerod":
        sk.keep(f"c.pos = torch.zeros((), dtype=torch.{dtype})")
        sk.seek.append("c.pos.fill_(p)")
        moves = ("c.pos += n", "c.pos.fill_(e0)", "c.pos.copy_(c.pos + n)", "c.pos.add_(n)")
        sk.after.append(pick.pick("move", moves))
        return [(pick.pick("read", ("c.pos.item()", "int(c.pos)")), plain)] * layers
    if kind == "per_row":
        sk.keep("c.idx = torch.zeros(b, dtype=torch.int64)")
        sk.seek.append("c.idx.fill_(p)")
        sk.after.append("c.idx += n")
        forms = ("int(c.idx[0])", "int(c.idx.max())", "c.idx.min().item()", "int(c.idx[-1])")
        return [(pick.pick("read", forms), plain)] * layers
    if kind == "two":
        sk.keep("c.idx = torch.zeros(1, dtype=torch.int64)")
        sk.keep("c.ends = torch.zeros(1, dtype=torch.int64)")
        sk.seek += ["c.idx.fill_(p)", "c.ends.fill_(p)"]
        sk.after += ["c.idx += n", "c.ends += n"]
        return [("int(c.idx[0])", "int(c.ends[0]) + n")] * layers
    if kind == "element" and pick.chance("counted", 0.2):  # the element before it counts the calls
        sk.keep(f"c.idx = torch.zeros(2, dtype=torch.{dtype})")
        sk.seek.append("c.idx[1] = p")
        sk.after += ["c.idx[0] += 1", "c.idx[1] += n"]
        return [("int(c.idx[1])", plain)] * layers
    sk.keep(f"c.idx = torch.zeros({layers}, dtype=torch.{dtype})")
    sk.seek.append("c.idx.fill_(2 * p)" if kind == "doubled" else "c.idx.fill_(p)")
    if kind == "doubled":
        sk.after.append("c.idx += 2 * n")
        return [(f"int(c.idx[{i}]) // 2", plain) for i in range(layers)]
    if pick.chance("move.all", 0.4):
        move = pick.weighed("move", _MOVE_ALL)
        sk.assigns |= " = " in move
        sk.after.append(move)
    else:
        move = pick.weighed("move", _MOVE)
        sk.after += [move.format(i=i) for i in range(layers)]
    if kind == "bounds":
        return [(f"c.idx[{i}]", plain) for i in range(layers)]
    whole = {"max": "int(c.idx.max())", "min": "c.idx.min().item()", "sum": f"int(c.idx.sum()) // {layers}"}
    if kind in whole:
        return [(whole[kind], plain)] * layers
    read = "c.idx.tolist()[{i}]" if kind == "tolist" else pick.weighed("read", _READ)
    return [(read.format(i=i), plain) for i in range(layers)]
