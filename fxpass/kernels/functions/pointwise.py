"""Ops on the elements of one or two tensors become a function of Triton, which a kernel of ours calls on what it has computed.

    t = mul(silu(a), b)     ->     def pointwise(a, b):
                                       t0 = a / (1 + exp(-a))
                                       t1 = t0 * b
                                       return t1

The function takes and returns float32. In between only casts round, as in the code that Inductor generates. A graph holds the
text alone, which is plain data.
"""

from __future__ import annotations

import functools
import hashlib
import linecache
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

NAMES = "ab"
"""What the operands are called."""

_FORMS = {
    aten.add.Tensor: "{} + {}",
    aten.sub.Tensor: "{} - {}",
    aten.mul.Tensor: "{} * {}",
    aten.div.Tensor: "{} / {}",
    aten.neg.default: "-{}",
    aten.exp.default: "exp({})",
    aten.relu.default: "tl.where({0} < 0, 0.0, {0})",
    aten.sigmoid.default: "1 / (1 + exp(-{}))",
    aten.silu.default: "{0} / (1 + exp(-{0}))",
}
_GELU = {
    "none": "0.5 * {0} * (1 + tl.erf(0.7071067811865476 * {0}))",
    "tanh": "{0} / (1 + exp(-1.5957691216057308 * ({0} + 0.044715 * {0} * {0} * {0})))",  # 0.5 (1 + tanh u) = 1 / (1 + exp -2u)
}
_DTYPES = {
    torch.float32: "{}",
    torch.bfloat16: "{}.to(tl.bfloat16).to(tl.float32)",
    torch.float16: "{}.to(tl.float16).to(tl.float32)",
}


def form(node: fx.Node) -> str | None:
    """How Triton computes ``node`` from its arguments; None if it is no op that this file knows."""
    kwargs = dict(node.kwargs)
    if node.target is aten.gelu.default:
        found = _GELU.get(kwargs.pop("approximate", "none"))
    elif node.target is aten.to.dtype and len(node.args) == 2 or node.target is aten._to_copy.default:
        dtype = kwargs.pop("dtype", None) if node.target is aten._to_copy.default else node.args[1]
        found = _DTYPES.get(dtype)  # type: ignore[arg-type]
    elif node.target is aten.type_as.default:
        found = _DTYPES.get(node.args[1].meta["val"].dtype)  # type: ignore[union-attr]
    else:
        found = _FORMS.get(node.target)
    numbers = [a for a in node.args if not isinstance(a, (fx.Node, torch.dtype))]
    plain = all(isinstance(n, (int, float)) and abs(n) < float("inf") for n in numbers)
    return found if plain and not kwargs else None


def operands_of(node: fx.Node) -> tuple[Any, ...]:
    """The arguments from which `form` computes ``node``."""
    return node.args[:1] if node.target is aten.type_as.default else node.args


def body(result: fx.Node, operands: Mapping[fx.Node, str]) -> str:
    """The statements of a function of the ``operands``, of which some may have the same name, that gives ``result``. Each op
    in between has a `form`."""
    names = dict(operands)
    lines: list[str] = []

    def name(argument: Any) -> str:
        if not isinstance(argument, fx.Node):
            return f"({argument!r})"
        if argument not in names:
            text = (form(argument) or "").format(*map(name, operands_of(argument)))
            names[argument] = f"t{len(lines)}"
            lines.append(f"{names[argument]} = {text}")
        return names[argument]

    last = name(result)
    return "; ".join([*lines, f"return {last}"])  # one line: Inductor puts it into comments


@functools.cache
def function(body: str, names: tuple[str, ...]) -> Any:
    """``body`` as a function of tensors called ``names`` that kernels can call."""
    import triton
    import triton.language as tl
    from triton import knobs
    from triton.language.extra import libdevice

    key = hashlib.sha256(f"{names}{body}".encode()).hexdigest()[:12]
    body = body.replace("exp(", "tl.exp(" if knobs.runtime.interpret else "libdevice.exp(")  # of which the interpreter has none
    text = f"def pointwise_{key}({', '.join(names)}):\n    {body}\n"
    file = f"<pointwise {key}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # Triton reads the source of functions
    space: dict[str, Any] = {"tl": tl, "libdevice": libdevice, "__name__": __name__}
    exec(compile(text, file, "exec"), space)
    return triton.jit(space[f"pointwise_{key}"])
