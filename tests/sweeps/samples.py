"""PyTorch's own samples of its operators as programs: each tensor input, each dim, cut at a position.

    add(x, y)       x of 3 x 4      ->      add(big_x[:p], y[:p]), add(big_x[:, :p], y[:, :p]), add(x, big_y[:, :p]), ...

What lies beyond the valid part is dirt: NaN, or numbers that no sample holds. Other inputs that have the same size are cut with
it where the operator would not take the input otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal import common_methods_invocations
from torch.utils._pytree import tree_flatten, tree_unflatten

from .bounded import Outcome, check

MARGIN = 2
"""How much larger than the sample its buffer is."""

Cut = dict[int, tuple[int, ...]]
"""The dims that are cut, of each input that has some."""


@dataclasses.dataclass
class Sample:
    """A call of an operator: its arguments as leaves, some of which are tensors."""

    op: Any
    leaves: list[Any]
    spec: Any

    @property
    def places(self) -> list[int]:
        return [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def call(self, tensors: Sequence[Any]) -> Any:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self.spec)
        return self.op(*args, **kwargs)


def _unseeded(op: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of what seeds the generator in the middle of a call, which a graph does not hold."""
    return op(*args, **kwargs)


common_methods_invocations.wrapper_set_seed = _unseeded


UNCHECKED = {"lu_unpack"}
"""Operators that take a part of an input without a check, and then read what lies behind it, or never return."""


def operators() -> list[Any]:
    return [op for op in common_methods_invocations.op_db if op.name not in UNCHECKED]


def samples(op: Any) -> list[Sample]:
    """All samples of ``op`` on the CPU: float32 where it takes that, else the first dtype that it takes."""
    dtypes = op.supported_dtypes("cpu")
    if not dtypes:
        return []
    dtype = torch.float32 if torch.float32 in dtypes else min(dtypes, key=str)
    torch.manual_seed(0)
    given = op.sample_inputs("cpu", dtype, requires_grad=False)
    return [Sample(op, *tree_flatten(((s.input, *s.args), dict(s.kwargs)))) for s in given]


def cuts(sample: Sample) -> Iterator[Cut]:
    """Each dim of each tensor input: alone, with the same dim of the others (from the right), with all dims of its size."""
    tensors = [sample.leaves[i] for i in sample.places]
    seen = []
    for i, tensor in enumerate(tensors):
        if tensor.layout is not torch.strided:
            continue
        for dim, size in enumerate(tensor.shape):
            if not size:
                continue
            others = [(j, t) for j, t in enumerate(tensors) if j != i and t.layout is torch.strided]
            same = {j: tuple(d for d, s in enumerate(t.shape) if s == size) for j, t in others}
            right = {j: (d,) for j, t in others if (d := dim - tensor.dim() + t.dim()) in same[j]}
            both = {j: dims for j, dims in same.items() if dims}
            for cut in ({i: (dim,)}, {i: (dim,), **right}, {i: (dim,), **both}):
                if cut not in seen:
                    seen.append(cut)
                    yield cut


def run(sample: Sample, cut: Cut) -> Outcome:
    """What comes of the sample with ``cut``, for valid lengths 0, 1, half and all."""
    tensors = [sample.leaves[i] for i in sample.places]
    i, (dim,) = next(iter(cut.items()))
    size = tensors[i].shape[dim]
    positions = sorted({0, 1, size // 2, size}, key=lambda p: (abs(p - max(2, size // 2)), p))
    buffers = [buffer_of(t, cut.get(j, ())) for j, t in enumerate(tensors)]

    def program(p: Any, *own: Any) -> Any:
        cut_ = []
        for j, tensor in enumerate(own):
            for d in cut.get(j, ()):
                tensor = tensor[(slice(None),) * d + (slice(p),)]
            cut_.append(tensor)
        return sample.call(cut_)

    return check(program, buffers, positions)


def buffer_of(tensor: Tensor, dims: Sequence[int]) -> Tensor:
    """``tensor`` at the front of a larger one, of the same order of strides, with dirt behind it."""
    if not dims:
        return tensor
    shape = [s + MARGIN if d in dims else s for d, s in enumerate(tensor.shape)]
    order = sorted(range(tensor.dim()), key=lambda d: (-tensor.stride(d), d))
    inverse = [order.index(d) for d in range(tensor.dim())]
    out = torch.empty([shape[d] for d in order], dtype=tensor.dtype).permute(inverse)
    out.fill_(_dirt(tensor.dtype))
    out[tuple(slice(s) for s in tensor.shape)] = tensor
    return out


def _dirt(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype is torch.bool else torch.iinfo(dtype).max - 3


def name_of(op: Any) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def describe(sample: Sample, cut: Cut) -> str:
    """The call in short: shapes, with the dims that are cut, and constants."""
    names = iter(range(len(sample.places)))
    said = []
    for leaf in sample.leaves:
        if not isinstance(leaf, Tensor):
            said.append(repr(leaf))
            continue
        dims = cut.get(next(names), ())
        sizes = [f"{size}{':p' if d in dims else ''}" for d, size in enumerate(leaf.shape)]
        said.append(f"{str(leaf.dtype)[6:]}[{', '.join(sizes)}]")
    return f"({', '.join(said)})"
