"""Graphs as code that reads well: one line an op, shapes on the left, the user's line above.

# attention.py:123  k, v = cache[layer]
slice_14: f32[3, 4, s0 + 1, 8] = aten.slice(select_6, 2, 0, add_9)
"""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch import fx

from fxpass.graph.bounds import TO_THE_END
from fxpass.graph.schemas import is_operator

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
           torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "b8"}  # fmt: skip
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)\n\s*(?P<code>.*)')


def readable_code(gm: fx.GraphModule) -> str:
    """The code of ``gm``, without parameters' placeholders that nothing but a layer reads."""
    lines, last = [], ""
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            lines.append(f"{node.name}: {_type(node.meta.get('val'))} = input")
            continue
        if node.op == "output":
            lines.append(f"return {_argument(node.args[0])}")
            continue
        where = _comment(node)
        if where and where != last:
            lines.append(where)
        last = where or last
        lines.append(f"{node.name}: {_type(node.meta.get('val'))} = {_expression(node)}")
    return "\n".join(lines)


def source_of(node: fx.Node) -> str:
    """``file:line`` of the user's code that made ``node``, or an empty string."""
    frame = _frame(node)
    return f"{frame['file']}:{frame['line']}" if frame else ""


def _frame(node: fx.Node) -> re.Match[str] | None:
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    return frames[-1] if frames else None


def _comment(node: fx.Node) -> str:
    frame = _frame(node)
    return f"# {os.path.basename(frame['file'])}:{frame['line']}  {frame['code'].strip()}" if frame else ""


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{_DTYPES.get(value.dtype, str(value.dtype))}[{', '.join(str(s) for s in value.shape)}]"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_type(v) for v in value) + ")"
    return type(value).__name__ if value is not None else "none"


def _expression(node: fx.Node) -> str:
    if node.op == "get_attr":
        return f"self.{node.target}"
    target = node.target
    name = str(target) if is_operator(target) else getattr(target, "__name__", str(target))
    name = re.sub(r"\.(default|Tensor|int)$", "", name)
    arguments = [_argument(a) for a in node.args] + [f"{k}={_argument(v)}" for k, v in node.kwargs.items()]
    return f"{name}({', '.join(arguments)})"


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_argument(v) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return "END" if isinstance(value, int) and value == TO_THE_END else str(value)
