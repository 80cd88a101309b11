"""Small attention models with key/value caches of their own, one for each way in which code keeps its position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention

ROWS, HEADS, CAPACITY, DIM = 2, 2, 16, 4
WIDTH = HEADS * DIM


class Cache:
    """Keys and values; the kinds differ in where the number of valid rows is kept."""

    def __init__(self, capacity: int = CAPACITY, fill: float = 0.0) -> None:
        self.keys = torch.full((ROWS, HEADS, capacity, DIM), fill)
        self.values = torch.full((ROWS, HEADS, capacity, DIM), fill)

    @property
    def length(self) -> int:
        raise NotImplementedError

    def append(self, k: Tensor, v: Tensor) -> None:
        start = self.length
        end = start + k.shape[2]
        assert end <= self.keys.shape[2], f"{end} rows do not fit"
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.set(end)

    def set(self, length: Any) -> None:
        raise NotImplementedError

    def read(self) -> tuple[Tensor, Tensor]:
        end = self.length
        return self.keys[:, :, :end], self.values[:, :, :end]

    def state(self) -> list[Tensor]:
        """All that the cache holds, as tensors of their own."""
        index = torch.as_tensor(getattr(self, "index", 0))
        return [t.clone() for t in (self.keys, self.values, index)]


class AttributeCache(Cache):
    """A Python int attribute."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.index = 0

    @property
    def length(self) -> int:
        return self.index

    def set(self, length: int) -> None:
        self.index = length


class ListCache(Cache):
    """A list of ints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.index = [0]

    @property
    def length(self) -> int:
        return self.index[0]

    def set(self, length: int) -> None:
        self.index[0] = length


class ItemCache(Cache):
    """A tensor, read with ``item``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.index = torch.zeros(1, dtype=torch.int64)

    @property
    def length(self) -> int:
        return int(self.index[0].item())

    def set(self, length: int) -> None:
        self.index[0] = length

    def reset(self) -> None:
        self.index.zero_()
        self.keys.zero_()
        self.values.zero_()


class BoundsCache(ItemCache):
    """A tensor whose elements are slice bounds themselves, for the write."""

    def append(self, k: Tensor, v: Tensor) -> None:
        start = self.index[0]
        end = start + k.shape[2]
        assert end <= self.keys.shape[2], f"{end} rows do not fit"
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.index[0] = end


CACHES: dict[str, type[Cache]] = {
    "attribute": AttributeCache,
    "list": ListCache,
    "item": ItemCache,
    "bounds": BoundsCache,
}
TENSOR_CACHES = ("item", "bounds")


class Attention(nn.Module):
    """One attention layer over a cache that is handed in; causal for the first chunk, all keys for later ones."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.dropout = dropout

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: bool) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=first, dropout_p=self.dropout if self.training else 0.0)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        q, k, v = self.project(x)
        first = cache.length == 0
        cache.append(k, v)
        k, v = cache.read()
        return self.out(self.attend(q, k, v, first).transpose(1, 2).flatten(2))


class StartPos(Attention):
    """The position is an int argument, the cache belongs to the module."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(ROWS, HEADS, CAPACITY, DIM))
        self.register_buffer("values", torch.zeros(ROWS, HEADS, CAPACITY, DIM))

    def forward(self, x: Tensor, start_pos: int) -> Tensor:  # type: ignore[override]
        q, k, v = self.project(x)
        end = start_pos + x.shape[1]
        self.keys[:, :, start_pos:end] = k
        self.values[:, :, start_pos:end] = v
        k, v = self.keys[:, :, :end], self.values[:, :, :end]
        return self.out(self.attend(q, k, v, start_pos == 0).transpose(1, 2).flatten(2))


class Custom(Attention):
    """Ends in ``finish(k, v)`` over what the cache gives."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.finish = finish

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        _, k, v = self.project(x)
        cache.append(k, v)
        k, v = cache.read()
        return self.finish(k, v)


def largest_places(k: Tensor, v: Tensor) -> Tensor:
    return k.topk(2, 2).indices[:, :, 0] + v.sum(2)


def median(k: Tensor, v: Tensor) -> Tensor:
    return k.median(dim=2).values + v.sum(2)


def leaves(k: Tensor, v: Tensor) -> Tensor:
    return k * 2 + v


def rolled_flat(k: Tensor, v: Tensor) -> Tensor:
    return k.roll(1).sum(2) + v.roll(1).sum(2)


def most_common(k: Tensor, v: Tensor) -> Tensor:
    return k.mode(2).values + v.sum(2)


def steps(prompt: int = 4, decoded: int = 5) -> list[Tensor]:
    """Inputs of one sequence: a prompt, then one row a step."""
    generator = torch.Generator().manual_seed(1)
    lengths = [prompt] + [1] * decoded
    return [torch.randn(ROWS, n, WIDTH, generator=generator) for n in lengths]


def kvfix(fn: Callable[..., Any], compiler: str = "eager", **options: Any) -> Any:
    """``fn`` compiled with kvfix."""
    return torch.compile(fn, backend="kvfix", options={"compiler": compiler, **options})


def graphs() -> int:
    """Graphs compiled since the test began."""
    return counters["stats"]["unique_graphs"]


def breaks() -> int:
    """Graph breaks since the test began."""
    return sum(counters["graph_break"].values())


def same_step(
    what: str, model: nn.Module, compiled: Any, x: Tensor, eager_cache: Any, cache: Any, exact: bool = True
) -> None:
    """One step on both sides: outputs within 1e-6, buffers (which hold projections of ``x`` alone) bitwise.

    ``exact=False`` for Inductor, whose own matmul may differ in the last bit: buffers within 1e-6 too.
    """
    expected = model(x, eager_cache)
    found = compiled(x, cache)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=lambda m: f"{what}: {m}")
    for name, a, b in zip(("keys", "values", "index"), cache.state(), eager_cache.state(), strict=True):
        close = 0.0 if exact or name == "index" else 1e-6
        said = f"{what}: {name} not equal"
        torch.testing.assert_close(a, b, rtol=close, atol=close, equal_nan=True, msg=said)


def relative_close(found: Tensor, expected: Tensor) -> None:
    """Relative to what is compared: the mean error 1e-6 of the mean value, each error 1e-5 of the value itself and the mean.

    Series, and samples from heavy tails, reach hundreds and more: what an absolute bound means depends on the seed.
    """
    error, size = (found - expected).abs(), expected.abs()
    mean, largest = error.mean() / size.mean(), (error / (size + size.mean())).max()
    assert mean < 1e-6 and largest < 1e-5, f"relative MAE {mean}, largest relative error {largest}"
