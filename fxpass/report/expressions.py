"""What is said of one node of a graph: its expression, its type, the user's line.

    attention.py:123    k, v = cache[layer]    f32[3, 4, s0 + 1, 8]    aten.slice({select_6}, 2, 0, {add_9})
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import fx

from fxpass.graph.bounds import TO_THE_END
from fxpass.graph.schemas import is_operator

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
           torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "b8"}  # fmt: skip
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)\n\s*(?P<code>.*)')


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


def type_of(value: Any) -> str:
    """Dtype and shape of a tensor, ``f32[2, s0, 8]``; of other values the type."""
    if isinstance(value, torch.Tensor):
        return f"{_DTYPES.get(value.dtype, str(value.dtype))}[{', '.join(str(s) for s in value.shape)}]"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(type_of(v) for v in value) + ")"
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return str(value)
    return type(value).__name__ if value is not None else "none"


def call_of(node: fx.Node) -> str:
    """The expression of ``node``, a format with the names of the nodes that it uses: ``aten.add({mul}, 1)``."""
    if node.op == "placeholder":
        return "input"
    if node.op == "output":
        return f"return {_argument(node.args[0])}"
    if node.op == "get_attr":
        return f"self.{node.target}"
    arguments = [_argument(a) for a in node.args] + [f"{k}={_argument(v)}" for k, v in node.kwargs.items()]
    return f"{operator_of(node)}({', '.join(arguments)})"


def operator_of(node: fx.Node) -> str:
    """What ``node`` calls: ``aten.add``, ``aten.sum.dim_IntList``; of what calls nothing, its kind."""
    if node.op != "call_function":
        return node.op
    name = str(node.target) if is_operator(node.target) else getattr(node.target, "__name__", str(node.target))
    return re.sub(r"\.(default|Tensor|int)$", "", name)


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return f"{{{value.name}}}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_argument, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    text = "END" if isinstance(value, int) and value == TO_THE_END else str(value)
    return text.replace("{", "{{").replace("}", "}}")
