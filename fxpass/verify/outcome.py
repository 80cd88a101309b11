"""Where two runs of a graph differ: what they return or raise, and what their inputs hold afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .copies import inner_tensors

RELATIVE = {torch.float64: 1e-7, torch.float32: 1.3e-6, torch.float16: 1e-3, torch.bfloat16: 1.6e-2,
            torch.complex128: 1e-7, torch.complex64: 1.3e-6, torch.complex32: 1e-3}  # fmt: skip
COUNTED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


@dataclasses.dataclass
class Outcome:
    """What a run has returned (``values``) or raised, and its inputs, ``held``."""

    values: Sequence[Any]
    error: Exception | None
    held: Sequence[Any]

    @classmethod
    def of(cls, fn: Callable[..., Any], args: Sequence[Any]) -> Outcome:
        """``fn(*args)``. Memory that runs out is no outcome: it is raised."""
        try:
            return cls(fn(*args), None, args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compared, and raised by `result`
            return cls((), error, args)

    def result(self) -> Any:
        """What the run has returned, or raises what it has raised."""
        if self.error is not None:
            raise self.error
        return self.values


def difference(found: Outcome, expected: Outcome, exact: tuple[bool, Sequence[bool]], inputs: Sequence[str]) -> str:
    """The first difference in words; empty where there is none.

    ``exact`` says whether results, and each of the inputs (called ``inputs``), must agree bitwise; see `tolerance` otherwise.
    """
    if found.error is not None or expected.error is not None:
        if found.error is not None and expected.error is not None:
            return ""
        return _two("", *(_raised(outcome.error) for outcome in (found, expected)))
    if len(found.values) != len(expected.values):
        return _two("the number of results", len(found.values), len(expected.values))
    results, each = exact
    pairs = [(f"result {i}", results, f, e) for i, (f, e) in enumerate(zip(found.values, expected.values, strict=True))]
    pairs += [(f"input {n}", x, f, e) for n, x, f, e in zip(inputs, each, found.held, expected.held, strict=True)]
    said = next((said for name, x, f, e in pairs if (said := _differs(name, f, e, x))), "")
    return said or _sharing(found, expected)


def tolerance(expected: Tensor) -> tuple[float, float]:
    """Relative and absolute tolerance against ``expected``: those of `torch.testing` for its dtype.

    The relative tolerance also holds of the average magnitude, since a small number among large ones is often their difference.
    """
    wide = expected.dtype in (torch.float64, torch.complex128)
    relative, absolute = RELATIVE.get(expected.dtype), 1e-7 if wide else 1e-5
    if relative is None:  # of 8 bits or fewer: two neighbors are alike
        relative, absolute = torch.finfo(expected.dtype).eps, torch.finfo(expected.dtype).smallest_normal
    held = numbers(expected)
    finite = held[held.isfinite()].abs().double()
    return relative, absolute + (relative * finite.mean().item() if finite.numel() else 0.0)


def numbers(tensor: Tensor) -> Tensor:
    """``tensor`` in a dtype that has the operators to compare it, with the same values."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in COUNTED:
        return tensor.view(COUNTED[tensor.dtype])
    if tensor.dtype is torch.complex32:
        return tensor.to(torch.complex64)
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


def _differs(name: str, found: Any, expected: Any, exact: bool) -> str:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        alike = found is expected or (type(found) is type(expected) and _equal(found, expected))
        return "" if alike else _two(name, found, expected)
    if _metadata(found) != _metadata(expected):
        return _two(name, _metadata(found), _metadata(expected))
    mine, theirs = inner_tensors(found), inner_tensors(expected)
    if mine is not None and theirs is not None:
        inner = (_differs(f"{name}.{n}", mine[n], theirs[n], exact) for n in mine)
        return next(filter(None, inner), "")
    return "" if found.is_meta or not found.numel() else _values(name, found, expected, exact)


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, (int, float, complex, str)):
        return found == expected or (found != found and expected != expected)
    return True  # an object that is no value


def _metadata(tensor: Tensor) -> str:
    kind = "" if type(tensor) is Tensor else f"{type(tensor).__name__} of "
    return f"{kind}{tensor.dtype}{list(tensor.shape)} on {tensor.device}"


def _values(name: str, found: Tensor, expected: Tensor, exact: bool) -> str:
    a, b = numbers(found), numbers(expected)
    same = (a == b) | ((a != a) & (b != b))
    exact = exact or not (b.is_floating_point() or b.is_complex())
    if not exact:
        relative, absolute = tolerance(expected)
        same |= b.isfinite() & ((a - b).abs() <= absolute + relative * b.abs())
    wrong = (~same).nonzero()
    if not len(wrong):
        return ""
    index = tuple(wrong[0].tolist())
    said = _two(f"{name} at {list(index)}", a[index].item(), b[index].item())
    return f"{said} ({len(wrong)} of {a.numel()} values differ, {'bitwise' if exact else 'by more than the tolerance'})"


def _sharing(found: Outcome, expected: Outcome) -> str:
    """The first difference in which memory results share; empty where there is none.

    The caller may write to a result. So it must be a view of the same input in both runs, and two results may begin at one
    address only where they do without kvfix, too.
    """
    for i, (mine, theirs) in enumerate(zip(found.values, expected.values, strict=True)):
        of = _input_of(mine, found.held), _input_of(theirs, expected.held)
        if of[0] != of[1]:
            return _two(f"result {i} shares memory", *("with no input" if n is None else f"with input {n}" for n in of))
        for j in range(i):
            if _begin_together(mine, found.values[j]) and not _begin_together(theirs, expected.values[j]):
                return _two(f"results {j} and {i}", "are in one memory", "in two")
    return ""


def _input_of(value: Any, held: Sequence[Any]) -> int | None:
    """The first input among whose elements ``value`` begins. Addresses tell it, for several storages may be of one memory."""
    if not _has_address(value):
        return None
    return next((i for i, v in enumerate(held) if _has_address(v) and _spans(v, value)), None)


def _spans(tensor: Tensor, value: Tensor) -> bool:
    last = sum((size - 1) * stride for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    within = 0 <= value.data_ptr() - tensor.data_ptr() <= last * tensor.itemsize
    return within and value.device == tensor.device


def _begin_together(a: Any, b: Any) -> bool:
    return _has_address(a) and _has_address(b) and a.data_ptr() == b.data_ptr()


def _has_address(value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout is torch.strided and inner_tensors(value) is None
    return plain and value.numel() > 0 and not value.is_meta


def _raised(error: Exception | None) -> str:
    return "it runs" if error is None else f"it raises {type(error).__name__}: {str(error).strip().splitlines()[:1]}"


def _two(what: str, found: Any, expected: Any) -> str:
    return f"{what}{': ' if what else ''}{found} with kvfix, {expected} without"
