"""Minimal models, one for each way to keep a position, to read a cache, to move a window. As small as they can be.

A model holds its own caches. A position is an int argument unless where it comes from is the pattern, attention is
`scaled_dot_product_attention` without a mask unless the consumer is the pattern. ``inputs`` gives the arguments of a prefill
of 5 rows and of 6 single rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as sdpa

ROWS, HEADS, CAPACITY, DIM = 2, 2, 16, 4
WIDTH = HEADS * DIM
PROMPT, DECODED = 5, 6
MODELS: dict[str, type[Model]] = {}


class Model(nn.Module):
    """A cache of keys and values, (rows, heads, capacity, dim), filled and read at ``start``.

    caches: the buffers whose unwritten tail may hold anything.
    graphs: what prefill and decoding compile to: one each, and one for each side of a branch, and one for a cache that is
        full, whose slices are whole.
    exact: buffers are compared to the bit; not where what is written is computed from an attention.
    """

    caches = ("keys", "values")
    graphs = 2
    exact = True
    tolerance = 1e-6
    capacity = CAPACITY

    def __init_subclass__(cls, register: bool = True) -> None:
        if register:
            MODELS[cls.__name__] = cls

    def __init__(self) -> None:
        super().__init__()
        self.cache("keys", ROWS, HEADS, self.capacity, DIM)
        self.cache("values", ROWS, HEADS, self.capacity, DIM)

    def cache(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        self.register_buffer(name, torch.zeros(shape, dtype=dtype))

    def index(self, *values: int) -> None:
        """An index tensor."""
        self.register_buffer("position", torch.tensor(values))

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        start = 0
        for n in (PROMPT, *[1] * DECODED):
            yield (torch.randn(ROWS, n, WIDTH), start)
            start += n

    def state(self) -> list[Any]:
        """All that a call may change."""
        return [*self.buffers()]

    def forward(self, x: Tensor, start: Any) -> Tensor:
        return self.attend(x, start, start + x.shape[1])

    def attend(self, x: Tensor, start: Any, end: Any) -> Tensor:
        """Append ``x`` at ``start``; what the rows up to ``end`` give."""
        self.append(x, start, end)
        return self.read(heads(x), end)

    def append(self, x: Tensor, start: Any, end: Any) -> None:
        self.keys[:, :, start:end] = heads(x)
        self.values[:, :, start:end] = heads(x) * 2

    def read(self, q: Tensor, end: Any) -> Tensor:
        return sdpa(q, self.keys[:, :, :end], self.values[:, :, :end])


class Plain(Model, register=False):
    """``x`` is the only argument."""

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, _ in super().inputs():
            yield (x,)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, DIM)).transpose(1, 2)


# -- where positions come from


class IntArgument(Model):
    pass


class Item(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.index(0)

    def forward(self, x: Tensor) -> Tensor:
        start = self.position[0].item()
        self.position[0] = start + x.shape[1]
        return self.attend(x, start, start + x.shape[1])


class ItemOfScalar(Plain):
    """A 0-d index tensor, advanced in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        start = self.position.item()
        self.position += x.shape[1]
        return self.attend(x, start, start + x.shape[1])


class IntOfElement(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.index(7, 0)

    def forward(self, x: Tensor) -> Tensor:
        start = int(self.position[-1])
        self.position[-1] += x.shape[1]
        return self.attend(x, start, start + x.shape[1])


class Bounds(Plain):
    """Tensors as slice bounds; Dynamo asks for their `__index__`."""

    def __init__(self) -> None:
        super().__init__()
        self.index(0)

    def forward(self, x: Tensor) -> Tensor:
        start = self.position[0]
        end = start + x.shape[1]
        out = self.attend(x, start, end)
        self.position[0] = end
        return out


class Int32Bounds(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.zeros(1, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        start = self.position[0].clone()
        self.position.add_(x.shape[1])
        return self.attend(x, start, self.position[0])


class ToList(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.index(3, 0)

    def forward(self, x: Tensor) -> Tensor:
        offset, start = self.position.tolist()
        end = start + x.shape[1]
        self.position[1] = end
        return self.attend(x, start, end) + offset


class MaxOfInputPositions(Model):
    """One position for each new row; the last tells how long the cache is."""

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, start in super().inputs():
            yield x, torch.arange(start, start + x.shape[1])

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        self.keys.index_copy_(2, positions, heads(x))
        self.values.index_copy_(2, positions, heads(x) * 2)
        return self.read(heads(x), int(positions.max().item()) + 1)


class Narrow(Model):
    def append(self, x: Tensor, start: Any, end: Any) -> None:
        self.keys.narrow(2, start, x.shape[1]).copy_(heads(x))
        self.values.narrow(2, start, x.shape[1]).copy_(heads(x) * 2)

    def read(self, q: Tensor, end: Any) -> Tensor:
        return sdpa(q, self.keys.narrow(2, 0, end), torch.narrow(self.values, 2, 0, end))


class NarrowByTensor(Plain):
    """`narrow` takes a 0-d tensor as its start."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("position", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.keys.narrow(2, self.position, x.shape[1]).copy_(heads(x))
        self.values.narrow(2, self.position, x.shape[1]).copy_(heads(x) * 2)
        self.position += x.shape[1]
        return self.read(heads(x), int(self.position))


class Holder:
    """An object that is no module."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class ObjectAttribute(Model):
    """The cache object is handed in, with an int as its length."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder(length=0)

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, _ in super().inputs():
            yield x, self.holder

    def state(self) -> list[Any]:
        return [*super().state(), self.holder.length]

    def forward(self, x: Tensor, cache: Holder) -> Tensor:
        start = cache.length
        cache.length += x.shape[1]
        return self.attend(x, start, cache.length)


class ModuleAttribute(Plain):
    """An int attribute of the module: a constant to stock Dynamo, and a recompilation each time it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def state(self) -> list[Any]:
        return [*super().state(), self.length]

    def forward(self, x: Tensor) -> Tensor:
        start = self.length
        self.length += x.shape[1]
        return self.attend(x, start, self.length)


class SubmoduleAttribute(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.inner = ModuleAttribute()

    caches = ("inner.keys", "inner.values")

    def state(self) -> list[Any]:
        return [*super().state(), self.inner.length]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1


class ObjectOfModule(Plain):
    """An int of an object that the module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder(length=0)

    def state(self) -> list[Any]:
        return [*super().state(), self.holder.length]

    def forward(self, x: Tensor) -> Tensor:
        start = self.holder.length
        self.holder.length += x.shape[1]
        return self.attend(x, start, self.holder.length)


class ModuleList(Plain):
    """A list of ints that the module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths = [3, 0]

    def state(self) -> list[Any]:
        return [*super().state(), *self.lengths]

    def forward(self, x: Tensor) -> Tensor:
        start = self.lengths[1]
        self.lengths[1] = start + x.shape[1]
        return self.attend(x, start, self.lengths[1])


class HostList(Model):
    """One length per row of the batch, on the host."""

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, start in super().inputs():
            yield x, [start + 2 * row for row in range(ROWS)]

    def forward(self, x: Tensor, starts: list[int]) -> Tensor:
        n, out = x.shape[1], []
        for row, start in enumerate(starts):
            self.keys[row, :, start : start + n] = heads(x)[row]
            self.values[row, :, start : start + n] = heads(x)[row] * 2
            k, v = self.keys[row, :, start : start + n], self.values[row, :, max(0, start - 1) : start + n]
            out.append(sdpa(heads(x)[row], k, v[:, -n:]))
        return torch.stack(out)


class MaxOfTwo(Model):
    """max, min and len arithmetic."""

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, start in super().inputs():
            yield x, [start, max(start - 2, 0)]

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        start = max(lengths)
        end = min(start + len(x[0]), len(self.keys[0, 0]))
        return self.attend(x, start, end)


class IntAndTensor(Model):
    """The sum of an int and an element of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.index(2)

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for i, (x, start) in enumerate(super().inputs()):
            yield x, (0 if i == 0 else start - i)

    def forward(self, x: Tensor, offset: int) -> Tensor:
        start = self.position[0] - 2 + offset
        end = start + x.shape[1]
        self.position += 1
        return self.attend(x, start, end)


class Remainder(Model):
    """Pages: a position taken apart with // and %. A constant, a number that moves, and a page that is full."""

    graphs = 3
    caches = ("pages",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("pages", CAPACITY // 4, 4, WIDTH)

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for start in range(1, 8):
            yield torch.randn(1, 1, WIDTH), start

    def forward(self, x: Tensor, start: int) -> Tensor:
        self.pages[start // 4, start % 4] = x[0, 0]
        page = self.pages[start // 4, : start % 4 + 1]
        return sdpa(x[0], page, page)


class DividedTensor(Plain):
    """The same arithmetic on an index tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.index(0)

    def forward(self, x: Tensor) -> Tensor:
        start = (self.position[0] // 2).item()
        assert self.position[0] % 2 == 0
        self.position += 2 * x.shape[1]
        return self.attend(x, start, start + x.shape[1])


# -- what reads the cache


class HandWritten(Model):
    """matmul, softmax, matmul."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        return (q @ k.transpose(-1, -2) / DIM**0.5).softmax(-1) @ v


class Float32Softmax(Model):
    """The scores are cast, masked with a number, and softmaxed in fp32."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        scores = torch.matmul(q, k.transpose(2, 3)) * DIM**-0.5
        rows, columns = torch.arange(end - q.shape[2], end, device=q.device), torch.arange(end, device=q.device)
        scores = scores.masked_fill(columns > rows[:, None], torch.finfo(scores.dtype).min)
        return torch.matmul(nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)


class Bmm(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end].flatten(0, 1), self.values[:, :, :end].flatten(0, 1)
        return torch.bmm(torch.bmm(q.flatten(0, 1), k.mT).softmax(2), v)


class Baddbmm(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end].flatten(0, 1), self.values[:, :, :end].flatten(0, 1)
        empty = torch.empty(k.shape[0], q.shape[2], k.shape[1], device=q.device)
        scores = torch.baddbmm(empty, q.flatten(0, 1), k.transpose(1, 2), beta=0, alpha=0.5)
        return torch.bmm(scores.softmax(-1), v)


class Einsum(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        scores = torch.einsum("bhqd,bhkd->bhqk", q, self.keys[:, :, :end])
        return torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), self.values[:, :, :end])


class EinsumEllipsis(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        scores = torch.einsum("...qd,...kd->...qk", q, self.keys[:, :, :end])
        return torch.einsum("...qk,...kd", scores.softmax(-1), self.values[:, :, :end])


class Grouped(Model, register=False):
    """Half as many heads of keys as of queries."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", ROWS, HEADS // 2, CAPACITY, DIM)
        self.cache("values", ROWS, HEADS // 2, CAPACITY, DIM)

    def append(self, x: Tensor, start: Any, end: Any) -> None:
        self.keys[:, :, start:end] = heads(x)[:, :1]
        self.values[:, :, start:end] = heads(x)[:, 1:]


class GroupedRepeatInterleave(Grouped):
    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = (t[:, :, :end].repeat_interleave(2, dim=1) for t in (self.keys, self.values))
        return sdpa(q, k, v)


class GroupedExpand(Grouped):
    def read(self, q: Tensor, end: Any) -> Tensor:
        def repeat(t: Tensor) -> Tensor:
            b, h, n, d = t.shape
            return t[:, :, None, :, :].expand(b, h, 2, n, d).reshape(b, h * 2, n, d)

        return sdpa(q, repeat(self.keys[:, :, :end]), repeat(self.values[:, :, :end]))


class GroupedEnableGqa(Grouped):
    def read(self, q: Tensor, end: Any) -> Tensor:
        return sdpa(q, self.keys[:, :, :end], self.values[:, :, :end], enable_gqa=True)


class Latent(Model):
    """One buffer for keys and values, with the projections absorbed into the query and the output."""

    caches = ("latents",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("latents", ROWS, CAPACITY, DIM)
        self.down, self.up = nn.Linear(WIDTH, DIM), nn.Parameter(torch.randn(2, HEADS, DIM, DIM))

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.latents[:, start:end] = self.down(x)
        latents = self.latents[:, :end]
        q = torch.einsum("bhqd,hdc->bhqc", heads(x), self.up[0])
        weights = torch.einsum("bhqc,bkc->bhqk", q, latents).softmax(-1)
        return torch.einsum("bhqk,bkc,hcd->bqhd", weights, latents, self.up[1])


class MaskSlice(Model):
    """A causal mask made once, and sliced by position both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(CAPACITY, CAPACITY, dtype=torch.bool).tril())

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.append(x, start, end)
        return sdpa(heads(x), self.keys[:, :, :end], self.values[:, :, :end], attn_mask=self.mask[start:end, :end])


class MaskOfAnotherSize(Model):
    """The mask is made for more rows than the cache has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(2 * CAPACITY, 2 * CAPACITY, dtype=torch.bool).tril())

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.append(x, start, end)
        mask = self.mask[start:end, :end]
        return sdpa(heads(x), self.keys[:, :, :end], self.values[:, :, :end], attn_mask=mask)


class MaskBySelectedRows(MaxOfInputPositions):
    """The rows of the mask are chosen by a tensor, its columns by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(CAPACITY, CAPACITY, dtype=torch.bool).tril()[None, None])

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        self.keys.index_copy_(2, positions, heads(x))
        self.values.index_copy_(2, positions, heads(x) * 2)
        end = int(positions[-1]) + 1
        mask = self.mask.index_select(2, positions)[..., :end]
        return sdpa(heads(x), self.keys[:, :, :end], self.values[:, :, :end], attn_mask=mask)


class MaskBuilt(Model):
    """A causal mask of the slice's size, made on the spot."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        n = q.shape[2]
        mask = torch.ones(n, k.shape[2], dtype=torch.bool, device=q.device).tril(diagonal=k.shape[2] - n)
        return sdpa(q, k, v, attn_mask=mask)


class MaskAdditive(Model):
    """Minus infinity above a diagonal that moves."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        n = q.shape[2]
        bias = torch.full((n, end), float("-inf"), device=q.device).triu(diagonal=end - n + 1)
        return sdpa(q, k, v, attn_mask=bias)


class MaskStacked(Model):
    """A triangle for the new rows, zeros for all earlier ones, side by side."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        n = x.shape[1]
        end = start + n
        self.append(x, start, end)
        new = torch.triu(torch.full((n, n), float("-inf"), device=x.device), diagonal=1)
        bias = torch.hstack([torch.zeros((n, start), device=x.device), new])
        scores = heads(x) @ self.keys[:, :, :end].transpose(2, 3) + bias
        return scores.softmax(-1) @ self.values[:, :, :end]


class Alibi(Model):
    """A bias that grows with the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor([0.5, 0.25]))

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        rows, columns = torch.arange(end - q.shape[2], end, device=q.device), torch.arange(end, device=q.device)
        distance = columns - rows[:, None]
        return sdpa(q, k, v, attn_mask=self.slopes[:, None, None] * distance)


class RelativeBias(Model):
    """A learned bias for each distance, looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(CAPACITY, HEADS)

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        rows, columns = torch.arange(end - q.shape[2], end, device=q.device), torch.arange(end, device=q.device)
        distance = (rows[:, None] - columns).clamp(min=0)
        return sdpa(q, k, v, attn_mask=self.bias(distance).permute(2, 0, 1))


class Sum(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        return q @ self.keys[:, :, :end].sum(2, keepdim=True).mT


class Mean(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        return q @ self.keys[:, :, :end].mean(dim=2)[..., None]


class Amax(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        return q @ (self.keys[:, :, :end].amax(2) - self.values[:, :, :end].min(dim=2).values)[..., None]


class Variance(Model):
    def read(self, q: Tensor, end: Any) -> Tensor:
        k = self.keys[:, :, :end]
        return q @ (k.var(2) + k.std(2, unbiased=False) + torch.linalg.vector_norm(k, dim=2))[..., None]


class LayerNorm(Model):
    """A norm over the channels of what is read leaves the cached axis alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)

    def read(self, q: Tensor, end: Any) -> Tensor:
        return sdpa(q, self.norm(self.keys[:, :, :end]), nn.functional.rms_norm(self.values[:, :, :end], (DIM,)))


class ProjectedAfter(Model):
    """Rows are cached before the projection: a linear layer over the valid rows."""

    caches = ("rows",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("rows", ROWS, CAPACITY, WIDTH)
        self.kv = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.rows[:, start:end] = x
        k, v = self.kv(self.rows[:, :end]).chunk(2, dim=-1)
        return sdpa(heads(x), heads(k), heads(v))


class RotaryTable(Model):
    """Sines and cosines sliced by position, for the new rows and for all."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CAPACITY), torch.tensor([1.0, 0.1]))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.append(x, start, end)
        q = self.rotate(heads(x), self.cos[start:end], self.sin[start:end])
        k = self.rotate(self.keys[:, :, :end], self.cos[:end], self.sin[:end])
        return sdpa(q, k, self.values[:, :, :end])


class RotaryComplex(Model):
    """The same with complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(CAPACITY), torch.tensor([1.0, 0.1]))
        self.register_buffer("freqs", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor, start: int) -> Tensor:
        freqs = self.freqs[start : start + x.shape[1]]
        turned = torch.view_as_real(torch.view_as_complex(heads(x).unflatten(-1, (-1, 2))) * freqs).flatten(3)
        return self.attend(turned.transpose(1, 2).flatten(2), start, start + x.shape[1])


class PositionEmbedding(Model):
    """Learned positions, looked up with an arange and sliced."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CAPACITY, WIDTH)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        x = x + self.embedding(torch.arange(start, end, device=x.device)) + self.embedding.weight[start:end]
        return self.attend(x, start, end)


class Sinusoidal(Model):
    """Positions as floats."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        steps = torch.arange(start, start + x.shape[1], dtype=torch.float32, device=x.device)[:, None]
        return self.attend(x + torch.sin(steps * torch.arange(WIDTH, device=x.device)), start, start + x.shape[1])


class SharedAcrossLayers(Model):
    """The second layer reads what the first has written."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        x = self.attend(x, start, end).transpose(1, 2).flatten(2)
        return self.read(heads(x), end)


class TwoLayers(Model):
    """Layer index first, in one buffer: the second layer's rows are computed from the first's."""

    exact = False

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", 2, ROWS, HEADS, CAPACITY, DIM)
        self.cache("values", 2, ROWS, HEADS, CAPACITY, DIM)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        for layer in range(2):
            self.keys[layer, :, :, start:end] = heads(x)
            self.values[layer, :, :, start:end] = heads(x)
            x = x + sdpa(heads(x), self.keys[layer, :, :, :end], self.values[layer, :, :, :end]).transpose(
                1, 2
            ).flatten(2)
        return x


class BatchFirst(Model):
    """(rows, capacity, heads, dim), and only the first rows of the batch in use."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", ROWS + 1, CAPACITY, HEADS, DIM)
        self.cache("values", ROWS + 1, CAPACITY, HEADS, DIM)

    def forward(self, x: Tensor, start: int) -> Tensor:
        b, n, _ = x.shape
        end = start + n
        self.keys[:b, start:end] = x.view(b, n, HEADS, DIM)
        self.values[:b, start:end] = x.view(b, n, HEADS, DIM)
        k, v = self.keys[:b, :end].transpose(1, 2), self.values[:b, :end].transpose(1, 2)
        return sdpa(heads(x), k, v)


class SequenceFirst(Model):
    """(capacity, rows, width)."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", CAPACITY, ROWS, WIDTH)
        self.cache("values", CAPACITY, ROWS, WIDTH)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.keys[start:end] = x.transpose(0, 1)
        self.values[start:end] = x.transpose(0, 1)
        k, v = (t[:end].view(end, ROWS, HEADS, DIM).permute(1, 2, 0, 3) for t in (self.keys, self.values))
        return sdpa(heads(x), k, v)


class KeysTransposed(Model):
    """Keys lie with the channels before the positions."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", ROWS, HEADS, DIM, CAPACITY)
        self.cache("values", ROWS, HEADS, CAPACITY, DIM)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.keys[..., start:end] = heads(x).mT
        self.values[..., start:end, :] = heads(x)
        return (heads(x) @ self.keys[..., :end]).softmax(-1) @ self.values[..., :end, :]


class Stacked(Model):
    """Keys and values in one tensor, unbound after the read."""

    caches = ("both",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("both", 2, ROWS, HEADS, CAPACITY, DIM)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.both[:, :, :, start:end] = torch.stack([heads(x), heads(x)])
        k, v = self.both[:, :, :, :end].unbind(0)
        return sdpa(heads(x), k, v)


class StackedInChannels(Model):
    """Keys and values side by side in the last dim, split after the read."""

    caches = ("both",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("both", ROWS, HEADS, CAPACITY, 2 * DIM)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.both[:, :, start:end] = torch.cat([heads(x), heads(x)], -1)
        k, v = self.both[:, :, :end].split([DIM, DIM], dim=-1)
        return sdpa(heads(x), k, v)


class BFloat16(Model):
    """A cache of another dtype than the queries."""

    tolerance = 1e-5

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("keys", ROWS, HEADS, CAPACITY, DIM, dtype=torch.bfloat16)
        self.cache("values", ROWS, HEADS, CAPACITY, DIM, dtype=torch.bfloat16)

    def read(self, q: Tensor, end: Any) -> Tensor:
        k, v = self.keys[:, :, :end].float(), self.values[:, :, :end].to(q)
        return sdpa(q, k, v)


class Quantized(Model):
    """An int8 cache with a scale for each row."""

    caches = ("scales",)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.cache("rows", ROWS, HEADS, CAPACITY, DIM, dtype=torch.int8)
        self.cache("scales", ROWS, HEADS, CAPACITY, 1)

    def forward(self, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        scale = heads(x).abs().amax(-1, keepdim=True) / 127
        self.scales[:, :, start:end] = scale
        self.rows[:, :, start:end] = (heads(x) / scale).round().to(torch.int8)
        rows = self.rows[:, :, :end].to(x.dtype) * self.scales[:, :, :end]
        return sdpa(heads(x), rows, rows)


class CatPast(Model):
    """The new rows are joined to the past before they are stored."""

    def attend(self, x: Tensor, start: Any, end: Any) -> Tensor:
        k = torch.cat([self.keys[:, :, :start], heads(x)], dim=2)
        v = torch.cat([self.values[:, :, :start], heads(x) * 2], dim=2)
        self.append(x, start, end)
        return sdpa(heads(x), k, v)


class CatStored(Model):
    """As above, and the whole is stored."""

    def attend(self, x: Tensor, start: Any, end: Any) -> Tensor:
        k = torch.cat([self.keys[:, :, :start], heads(x)], dim=2)
        v = torch.cat([self.values[:, :, :start], heads(x) * 2], dim=2)
        self.keys[:, :, :end] = k
        self.values[:, :, :end] = v
        return sdpa(heads(x), k, v)


class LastRow(Model):
    """The row before the new ones."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        out = self.attend(x, start, start + x.shape[1])
        return out + self.keys[:, :, :start][:, :, -1:].sum(2, keepdim=True)


# -- windows and rings


class Window(Model):
    """Reads of a number of rows that grows to 4, then moves."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        start = max(0, end - 4)
        return sdpa(q, self.keys[:, :, start:end], self.values[:, :, start:end])


class WindowOfMoving(Model):
    """Both ends move, and so does the number of rows."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        start = end // 2
        return sdpa(q, self.keys[:, :, start:end], self.values[:, :, start:end])


class Ring(Model):
    """Writes at the position modulo the capacity; all rows are read once the ring is full, in a graph without positions."""

    capacity = 8

    def forward(self, x: Tensor, start: int) -> Tensor:
        n = x.shape[1]
        slot = start % 8
        self.append(x, slot, slot + n)
        return self.read(heads(x), min(start + n, 8))


class RingByItem(Plain):
    capacity = 8

    def __init__(self) -> None:
        super().__init__()
        self.index(0)

    def forward(self, x: Tensor) -> Tensor:
        start, n = int(self.position[0]), x.shape[1]
        slot = start % 8
        self.append(x, slot, slot + n)
        self.position += n
        return self.read(heads(x), min(start + n, 8))


class RingByIndex(Model):
    """Writes by an index tensor made from the position, wrapping round."""

    capacity = 8

    def forward(self, x: Tensor, start: int) -> Tensor:
        n = x.shape[1]
        slots = torch.arange(start, start + n, device=x.device) % 8
        self.keys[:, :, slots] = heads(x)
        self.values.index_copy_(2, slots, heads(x) * 2)
        return self.read(heads(x), min(start + n, 8))


class Roll(Model):
    """The newest row is the last; the valid rows are those at the end."""

    capacity = 8

    def append(self, x: Tensor, start: Any, end: Any) -> None:
        n = x.shape[1]
        for buffer in (self.keys, self.values):
            buffer.copy_(torch.roll(buffer, -n, dims=2))
            buffer[:, :, -n:] = heads(x)

    def read(self, q: Tensor, end: Any) -> Tensor:
        first = max(8 - end, 0)
        return sdpa(q, self.keys[:, :, first:], self.values[:, :, first:])


class Shift(Roll):
    """The same with slices; the source overlaps the target."""

    def append(self, x: Tensor, start: Any, end: Any) -> None:
        n = x.shape[1]
        for buffer in (self.keys, self.values):
            buffer[:, :, :-n] = buffer[:, :, n:].clone()
            buffer[:, :, -n:] = heads(x)


class ShiftByCat(Roll):
    """The same by joining and storing all rows."""

    def append(self, x: Tensor, start: Any, end: Any) -> None:
        for buffer in (self.keys, self.values):
            buffer[:] = torch.cat([buffer[:, :, x.shape[1] :], heads(x)], dim=2)


class RollByPosition(Model):
    """The window ends where the position says: a roll by a moving number."""

    capacity = 8

    def forward(self, x: Tensor, start: int) -> Tensor:
        self.append(x, start % 4, start % 4 + x.shape[1])
        k, v = torch.roll(self.keys, -(start % 4), 2), torch.roll(self.values, -(start % 4), 2)
        return sdpa(heads(x), k[:, :, : x.shape[1]], v[:, :, : x.shape[1]])


class Overflow(Model):
    """Fills up, then rolls: a branch on the position, which makes a graph for each side, and one for the row that fills it."""

    capacity = 8
    graphs = 3

    def forward(self, x: Tensor, start: int) -> Tensor:
        n = x.shape[1]
        if start + n > 8:
            for buffer in (self.keys, self.values):
                buffer.copy_(buffer.roll(-n, dims=2))
            start = 8 - n
        return self.attend(x, start, start + n)


class OverflowByItem(Plain):
    """The same with the position in a tensor."""

    capacity = 8
    graphs = 3

    def __init__(self) -> None:
        super().__init__()
        self.index(0)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        start = self.position[0].item()
        if start + n > 8:
            for buffer in (self.keys, self.values):
                buffer.copy_(buffer.roll(-n, dims=2))
            start = 8 - n
        self.position[0] = start + n
        return self.attend(x, start, start + n)


class SinksAndWindow(Model):
    """The first two rows and the last four, joined."""

    def read(self, q: Tensor, end: Any) -> Tensor:
        start = max(2, end - 4)
        k = torch.cat([self.keys[:, :, :2], self.keys[:, :, start:end]], dim=2)
        v = torch.cat([self.values[:, :, :2], self.values[:, :, start:end]], dim=2)
        return sdpa(q, k, v)


# -- controls: nothing to do


class StaticControl(Model, register=False):
    """Writes by index, reads everything under a mask."""

    graphs = 2

    def inputs(self) -> Iterator[tuple[Any, ...]]:
        for x, start in super().inputs():
            yield x, torch.arange(start, start + x.shape[1])

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        self.keys.index_copy_(2, positions, heads(x))
        self.values.index_copy_(2, positions, heads(x))
        mask = torch.arange(CAPACITY, device=x.device) <= positions[:, None]
        return sdpa(heads(x), self.keys, self.values, attn_mask=mask)


CONTROLS: dict[str, type[Model]] = {"StaticControl": StaticControl}
