"""The type of what a node of a graph gives: f32[3, 4, s0 + 1, 8]."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from fxpass.graph.expression_texts import expression_text
from fxpass.graph.numbers import to_expr

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64",
           torch.int32: "i32", torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "b8",
           torch.complex64: "c64", torch.complex128: "c128"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """Dtype and sizes of a tensor, symbolic ones as expressions: it keeps no tensor, and no environment of shapes."""

    dtype: torch.dtype
    sizes: tuple[Any, ...]


def type_of(value: Any) -> str:
    """Dtype and shape of a tensor, ``f32[2, s0, 8]``; of other values the type."""
    return type_text(shape_or_kind(value))


def shape_or_kind(value: Any) -> Any:
    """What the type of ``value`` is printed from: the `Shape` of a tensor, the expression of a number, or the name of a
    type."""
    if isinstance(value, torch.Tensor):
        return Shape(value.dtype, tuple(map(to_expr, value.shape)))
    if isinstance(value, (tuple, list)):
        return tuple(map(shape_or_kind, value))
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return to_expr(value)
    return type(value).__name__ if value is not None else "none"


def type_text(shape: Any) -> str:
    """What `shape_or_kind` gives, as a text."""
    if isinstance(shape, Shape):
        return f"{_DTYPES.get(shape.dtype, str(shape.dtype))}[{', '.join(map(expression_text, shape.sizes))}]"
    return f"({', '.join(map(type_text, shape))})" if isinstance(shape, tuple) else expression_text(shape)
