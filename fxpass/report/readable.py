"""Graphs as code that reads well: one line an op, shapes on the left, the user's line above.

# attention.py:123  k, v = cache[layer]
slice_14: f32[3, 4, s0 + 1, 8] = aten.slice(select_6, 2, 0, add_9)
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import Symbol
from fxpass.graph import aliases
from fxpass.graph.bounds import TO_THE_END
from fxpass.graph.schemas import is_operator
from fxpass.rewriting import Around
from fxpass.torch_internals.dynamo.origins import name_of

from .names import user_name

aten = torch.ops.aten

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
           torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "b8"}  # fmt: skip
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)\n\s*(?P<code>.*)')


_REPEATED = {aten.arange, aten.scalar_tensor, aten.full, aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.unsqueeze,
             aten.logical_and, aten.logical_not, aten.sub, aten.add}  # fmt: skip
"""What masks are made with: of several that are equal, all of numbers and one another, the first is shown."""


def readable_code(gm: fx.GraphModule, symbols: Sequence[Symbol] = ()) -> str:
    """The code of ``gm``: inputs are called what the user calls them, ``symbols`` what they are, and equal masks stand once."""
    return renamed("\n".join(_lines(gm)), symbols)


def renamed(text: str, symbols: Sequence[Symbol]) -> str:
    """``text`` with ``pos``, ``len`` and ``size`` for symbols of positions, growths and variants; the second is ``pos2``."""
    kinds = {"position": "pos", "growth": "len", "variant": "size"}
    seen: collections.Counter[str] = collections.Counter()
    for called, kind in {called: symbol.kind for symbol in symbols for called in symbol.symbol.split(", ")}.items():
        name = kinds[kind]
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}{seen[name]}"
        text = re.sub(rf"\b{re.escape(called)}\b", own, text)
    return text


def _lines(gm: fx.GraphModule) -> Iterator[str]:
    names: dict[fx.Node, str] = {}
    shown: dict[str, str] = {}
    written = {aliases.root(w) for n in gm.graph.nodes for w in aliases.written(n)}
    last = ""
    for node in gm.graph.nodes:
        names[node] = _input_name(node, names) if node.op == "placeholder" else node.name
        if node.op == "placeholder":
            yield f"{names[node]}: {type_of(node.meta.get('val'))} = input"
            continue
        if node.op == "output":
            yield f"return {_argument(node.args[0], names)}"
            continue
        code = f"{type_of(node.meta.get('val'))} = {_expression(node, names)}"
        if _is_repeated(node) and written.isdisjoint(map(aliases.root, (node, *node.all_input_nodes))):
            names[node] = shown.setdefault(code, node.name)
            if names[node] != node.name:
                continue
        where = _comment(node)
        if where and where != last:
            yield where
        last = where or last
        yield f"{node.name}: {code}"


def _input_name(node: fx.Node, taken: Mapping[fx.Node, str]) -> str:
    name = user_name(name_of(node))
    return name if name not in taken.values() else node.name


def grown_names(gm: fx.GraphModule, around: Around) -> list[str]:
    """What the user calls the inputs of ``gm`` that have the buffers ``around`` it."""
    inputs = gm.graph.find_nodes(op="placeholder")
    return [user_name(name_of(inputs[one.place])) for one in around.axes]


def _is_repeated(node: fx.Node) -> bool:
    return getattr(node.target, "overloadpacket", None) in _REPEATED


def source_of(node: fx.Node) -> str:
    """``file:line`` of the user's code that made ``node``, or an empty string."""
    frame = _frame(node)
    return f"{frame['file']}:{frame['line']}" if frame else ""


def code_of(node: fx.Node) -> str:
    """The text of that line, or an empty string."""
    frame = _frame(node)
    return frame["code"].strip() if frame else ""


def _frame(node: fx.Node) -> re.Match[str] | None:
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    return frames[-1] if frames else None


def _comment(node: fx.Node) -> str:
    frame = _frame(node)
    return f"# {os.path.basename(frame['file'])}:{frame['line']}  {frame['code'].strip()}" if frame else ""


def type_of(value: Any) -> str:
    """Dtype and shape of a tensor, ``f32[2, s0, 8]``; of other values the type."""
    if isinstance(value, torch.Tensor):
        return f"{_DTYPES.get(value.dtype, str(value.dtype))}[{', '.join(str(s) for s in value.shape)}]"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(type_of(v) for v in value) + ")"
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return str(value)
    return type(value).__name__ if value is not None else "none"


def _expression(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    if node.op == "get_attr":
        return f"self.{node.target}"
    target = node.target
    name = str(target) if is_operator(target) else getattr(target, "__name__", str(target))
    name = re.sub(r"\.(default|Tensor|int)$", "", name)
    arguments = [_argument(a, names) for a in node.args] + [f"{k}={_argument(v, names)}" for k, v in node.kwargs.items()]
    return f"{name}({', '.join(arguments)})"


def _argument(value: Any, names: Mapping[fx.Node, str]) -> str:
    if isinstance(value, fx.Node):
        return names.get(value, value.name)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_argument(v, names) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return "END" if isinstance(value, int) and value == TO_THE_END else str(value)
