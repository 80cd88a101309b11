"""Positions used as numbers in tensor arithmetic become 0-d tensors.

seq = add(arange(1), s)               ->    seq = add(arange(1), s_t)
mask = le(steps, end)                 ->    mask = le(steps, end_t)
pos = arange(s, s + 4)                ->    pos = arange(4) + s_t
pos = arange(s + 3, s - 1, -1)        ->    pos = arange(4) * -1 + s_t + 3
x = full([2, 3], s)                   ->    x = expand(s_t, [2, 3])
y = roll(x, s, 0)                     ->    y = index_select(x, 0, (arange(8) - s_t) % 8)
k = slice_scatter(k, x, 1, s, s + 1)  ->    k = index_copy(k, 1, arange(1) + s_t, x)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.arithmetic import is_float
from fxpass.analysis.positions import Positions
from fxpass.analysis.rules.places import times
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import from_the_front, size_of
from fxpass.graph.numbers import equal, guarded, number
from fxpass.graph.schemas import arguments_by_name
from fxpass.graph.values import tensors_of
from fxpass.rewriting.nodes import bits
from fxpass.rewriting.nodes.builder import Builder

aten = torch.ops.aten


def uses_position(node: fx.Node, positions: Positions) -> bool:
    """Whether ``node``, an op that gives tensors or writes to some, takes a position as an argument."""
    return node.op == "call_function" and bool(made_by(node)) and any(i in positions for i in node.all_input_nodes)


def made_by(node: fx.Node) -> list[torch.Tensor]:
    """The tensors that ``node`` gives, and those that it writes to."""
    return [*tensors_of(node), *(t for w in aliases.written(node) for t in tensors_of(w))]


def rewrite_scalar(node: fx.Node, positions: Positions, b: Builder) -> fx.Node:
    """A form of ``node`` that takes tensors in the place of positions, inserted before it.

    Raises:
        Refusal: the op has no form that takes a tensor there, or PyTorch looks at the number itself.
    """
    if node.target in _CHECKED:
        _guard_fit(node, positions)
    made = _BUILDERS.get(node.target)
    if made is not None:
        return made(node, b)
    target = TENSOR_FORM.get(node.target, node.target)
    if target not in ACCEPT_TENSORS or any(v in positions for v in node.kwargs.values()):
        raise Refusal(reasons.NUMBERS_ONLY, op=node.target)
    tensor = next(a for a in node.args if isinstance(a, fx.Node) and a not in positions)
    args = [_twin(a, tensor, b) if a in positions else a for a in node.args]
    return b.call(target, *args, **node.kwargs)


def _guard_fit(node: fx.Node, positions: Positions) -> None:
    """Guard that the positions which ``node`` takes fit its dtype. PyTorch raises an error for a number that does not fit, and
    would cast a tensor."""
    dtype = node.meta["val"].dtype
    if dtype is torch.bool or dtype.is_complex:
        return
    ends = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    least, most = int(ends.min) or -int(ends.max), int(ends.max)  # into unsigned numbers, negative ones wrap around
    if most >= 2**63 - 1:
        return
    for value in (v for v in (*node.args, *node.kwargs.values()) if v in positions):
        if not guarded(number(value) >= least) or not guarded(number(value) <= most):
            raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target} of {dtype}, which it does not fit,")


def _twin(value: Any, beside: fx.Node, b: Builder) -> Any:
    """The twin of a number, in a dtype that promotes as a Python number does ``beside`` a tensor.

    A 0-d int64 tensor promotes like a Python int beside a tensor with dims; beside a 0-d tensor its dtype would win. The dtype
    of a 0-d float64 tensor would also win beside integers, where a Python float counts as of the default dtype.
    """
    tensor = beside.meta["val"]
    twin = b.twin(value, tensor.device)
    if is_float(value):
        alike = tensor.dim() and (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
        return twin if alike else b.call(aten.to.dtype, twin, torch.result_type(tensor, 1.0))
    if tensor.dim() == 0 and tensor.dtype is not torch.bool and tensor.dtype is not torch.int64:
        twin = b.call(aten.to.dtype, twin, tensor.dtype)
    return twin


def _arange(node: fx.Node, b: Builder) -> fx.Node:
    start, _, step = (*node.args, 1)[:3]
    value = node.meta["val"]
    count = b.steady(value.shape[0])
    if not isinstance(step, int) or count is None or is_float(start):
        raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target}, for its length or step or with a fraction")
    steps = b.call(aten.arange.default, count, dtype=value.dtype, device=value.device)
    return b.call(aten.add.Tensor, times(b, steps, step), b.twin(start, value.device))


def _full(node: fx.Node, b: Builder) -> fx.Node:
    value = node.meta["val"]
    fill = node.args[1] if node.target is aten.full.default else node.args[0]
    sizes = [b.steady(s) for s in value.shape]
    if None in sizes:
        raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target}, for a size")
    cast = b.call(aten.to.dtype, b.twin(fill, value.device), value.dtype)
    return b.call(aten.clone.default, b.call(aten.expand.default, cast, sizes))


def _roll(node: fx.Node, b: Builder) -> fx.Node:
    """``roll(x, s, d)``: row i comes from row ``(i - s) % size``."""
    x, shifts, dims = (*node.args, [])[:3]
    if not dims:
        raise Refusal(reasons.BY_POSITION, op=node.target, how="of a flattened tensor")
    for shift, dim in zip(shifts, dims, strict=True):
        size = b.steady(node.meta["val"].shape[dim])
        if size is None:
            raise Refusal(reasons.BY_POSITION, op=node.target, how="along an axis that is not fixed")
        steps = b.call(
            aten.sub.Tensor,
            b.call(aten.arange.default, size, device=node.meta["val"].device),
            b.twin(shift, x.meta["val"].device),
        )
        x = b.call(aten.index_select.default, x, dim, b.call(aten.remainder.Scalar, steps, size))
    return x


def _triangle(node: fx.Node, b: Builder) -> fx.Node:
    return b.triangle(node, node.args[0], node.args[1])


def _rows_put_in(node: fx.Node, b: Builder) -> fx.Node:
    """``slice_scatter(k, x, d, s, s + n)`` and ``select_scatter(k, x, d, s)``, of a steady number of rows."""
    given = arguments_by_name(node)
    k, x = given["self"], given["src"]
    whole, dim = k.meta["val"], given.get("dim", 0) % k.meta["val"].dim()
    is_row = node.target is aten.select_scatter.default
    count = 1 if is_row else b.steady(x.meta["val"].shape[dim])
    if count is None or given.get("step", 1) != 1:
        raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target}, for a number of rows or a step")
    size = size_of(k, dim, node)
    start = from_the_front(given["index" if is_row else "start"] or 0, size, node)
    if not guarded(number(start) + number(count) <= whole.shape[dim]):
        raise Refusal(reasons.OUTSIDE, how="its end is not known to be within the buffer")
    stop = size if given.get("end") is None else from_the_front(given["end"], size, node)
    if not is_row and not equal(number(stop) - number(start), count):
        raise Refusal(reasons.JOINED, how="in the place of another number of rows")
    steps = b.call(aten.arange.default, count, device=whole.device)
    slots = b.call(aten.add.Tensor, steps, b.twin(start, whole.device))
    rows = b.call(aten.to.dtype, b.call(aten.unsqueeze.default, x, dim) if is_row else x, whole.dtype)
    if bits.is_put(whole.dtype):
        return b.call(aten.index_put.default, k, [None] * dim + [slots], rows)
    put = b.call(aten.index_copy.default, b.bits(k, whole.dtype), dim, slots, b.bits(rows, whole.dtype))
    return b.back(put, whole.dtype)


def _rsub(node: fx.Node, b: Builder) -> fx.Node:
    """``rsub(x, s)`` is ``s - x``."""
    x, value, *alpha = node.args
    if alpha or node.kwargs:
        raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target} with a factor")
    return b.call(aten.sub.Tensor, _twin(value, x, b), x)


def _clamp(node: fx.Node, b: Builder) -> fx.Node:
    """``clamp(x, s, t)`` is ``clamp_max(clamp_min(x, s), t)``."""
    given = arguments_by_name(node)
    x = given["self"]
    for bound, op in ((given.get("min"), aten.clamp_min), (given.get("max"), aten.clamp_max)):
        if isinstance(bound, fx.Node):
            x = b.call(op.Tensor, x, _twin(bound, given["self"], b))
        elif bound is not None:
            x = b.call(op.default, x, bound)
    return x


def _where(node: fx.Node, b: Builder) -> fx.Node:
    """``where(truth, x, s)``, ``where(truth, s, x)`` and ``where(truth, s, t)``, of whole numbers."""
    truth, *chosen = node.args
    if any(not isinstance(number(a), (int, torch.SymInt, torch.Tensor)) or isinstance(a, bool) for a in chosen):
        raise Refusal(reasons.NUMBERS_ONLY, op=f"{node.target}, with a fraction")
    beside = next((a for a in chosen if isinstance(number(a), torch.Tensor)), None)
    if beside is None:
        return b.call(aten.where.self, truth, *(b.tensor(a, b.device) for a in chosen))
    return b.call(aten.where.self, truth, *(a if a is beside else _twin(a, beside, b) for a in chosen))


_BUILDERS: dict[Any, Callable[[fx.Node, Builder], fx.Node]] = {
    aten.clamp.default: _clamp,
    aten.clip.default: _clamp,
    aten.where.ScalarOther: _where,
    aten.where.ScalarSelf: _where,
    aten.where.Scalar: _where,
    aten.roll.default: _roll,
    aten.slice_scatter.default: _rows_put_in,
    aten.select_scatter.default: _rows_put_in,
    aten.tril.default: _triangle,
    aten.triu.default: _triangle,
    aten.rsub.Scalar: _rsub,
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.full.default: _full,
    aten.scalar_tensor.default: _full,
}

TENSOR_FORM: dict[Any, Any] = {aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor, aten.pow.Scalar: aten.pow.Tensor_Tensor,
                                aten.clamp_min.default: aten.clamp_min.Tensor, aten.clamp_max.default: aten.clamp_max.Tensor,
                                aten.lerp.Scalar: aten.lerp.Tensor, aten.floor_divide.Scalar: aten.floor_divide.default,
                                aten.where.ScalarSelf: aten.where.self, aten.where.ScalarOther: aten.where.self,
                                aten.xlogy.Scalar_Other: aten.xlogy.Tensor}  # fmt: skip
for _op in (aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.ne, aten.remainder, aten.fmod, aten.masked_fill, aten.fill_,
            aten.copysign, aten.bitwise_and, aten.add, aten.sub, aten.mul, aten.div):  # fmt: skip
    if "Scalar" in _op.overloads():
        TENSOR_FORM[_op.Scalar] = _op.Tensor
_CHECKED = {aten.full.default, aten.scalar_tensor.default, aten.fill_.Scalar, aten.masked_fill.Scalar, aten.clamp.default,
            aten.clip.default, aten.pow.Tensor_Scalar, aten.clamp_min.default, aten.clamp_max.default,
            aten.where.ScalarOther, aten.where.ScalarSelf}  # fmt: skip
"""Those that raise an error for a number that does not fit the dtype."""
ACCEPT_TENSORS = {*TENSOR_FORM.values(), aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
                   aten.div.Tensor_mode, aten.floor_divide.default, aten.add_.Tensor, aten.sub_.Tensor,
                   aten.mul_.Tensor, aten.div_.Tensor}  # fmt: skip
