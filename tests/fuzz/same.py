"""What two sides must have in common: shapes, dtypes and numbers of results, and all that caches hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

TOLERANCE = {
    torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 8e-3, torch.bfloat16: 5e-2, torch.complex64: 2e-5,
    torch.float8_e4m3fn: 0.3, torch.float8_e5m2: 0.6,
}  # fmt: skip


@dataclasses.dataclass
class Failure(Exception):
    """Where the two sides differ, at which call.

    kind: "output", "state", "raised" (only we did), "silent" (only eager did), "graphs" (more than stock), "left" (more
    than stock, which leaves the rest of a frame to Python), "pass" (failed).
    """

    kind: str
    call: int
    detail: str


def same(want: Any, got: Any, where: str, kind: str, call: int) -> None:
    """Raises `Failure` where the two differ."""
    if isinstance(want, dict):
        for key in want:
            same(want[key], got.get(key), f"{where}.{key}", kind, call)
    elif isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(want) != len(got):
            raise Failure(kind, call, f"{where}: {_kind(got)} where eager has {len(want)} values")
        for i, (a, b) in enumerate(zip(want, got, strict=True)):
            same(a, b, f"{where}[{i}]", kind, call)
    elif isinstance(want, torch.Tensor):
        if not isinstance(got, torch.Tensor) or (want.shape, want.dtype) != (got.shape, got.dtype):
            raise Failure(kind, call, f"{where}: {_kind(got)} where eager has {_kind(want)}")
        if want.stride() != got.stride() and kind == "state":
            raise Failure(kind, call, f"{where}: strides {got.stride()} where eager has {want.stride()}")
        apart = _apart(want, got)
        if apart:
            raise Failure(kind, call, f"{where}: differs by {apart:.3g}")
    elif type(want) is not type(got) or want != got:
        raise Failure(kind, call, f"{where}: {got!r} where eager has {want!r}")


def _apart(want: torch.Tensor, got: torch.Tensor) -> float:
    """By how much the two differ where that is more than rounding; 0 where it is not."""
    wide = torch.complex128 if want.is_complex() else torch.float64
    a, b = want.detach().to(wide), got.detach().to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    if bool(same.all()):
        return 0.0
    finite = a[a.isfinite()].abs()
    bound = TOLERANCE.get(want.dtype, 0.0) * max(1.0, finite.max().item() if finite.numel() else 1.0)
    off = (a - b).abs().masked_fill(same, 0).nan_to_num(float("inf")).max().item()
    return off if off > bound else 0.0


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
