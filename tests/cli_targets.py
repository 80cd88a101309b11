"""What the command line takes by name: factories, one that works and each way in which one can be wrong; a benchmark."""

from __future__ import annotations

from typing import Any

import torch

CONSTANT = 3


class Counter(torch.nn.Module):
    """Appends a row to a buffer, and sums what is written so far."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(capacity, 2))
        self.register_buffer("length", torch.tensor([1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = int(self.length[0].item())
        assert start < self.rows.shape[0], "the buffer is full"
        self.rows[start : start + 1] = x
        self.length[0] = start + 1
        return self.rows[: start + 1].sum(0)


def good() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return Counter(8), (torch.ones(1, 2),), {}


class Layers(torch.nn.Module):
    """Reads a number in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Counter(8) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for layer in self.layers:
            out = out + layer.rows[: int(layer.length[0].item())].sum(0)
        return out + sum(layer(x) for layer in self.layers)


def loop() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return Layers(), (torch.ones(1, 2),), {}


def keywords() -> tuple[Any, list[Any], dict[str, Any]]:
    return Counter(8), [], {"x": torch.ones(1, 2)}


class Weighted(Counter):
    """With a parameter."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.weight


def weighted() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return Weighted(8), (torch.ones(1, 2),), {}


def full() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return Counter(2), (torch.ones(1, 2),), {}


def nothing_to_compile() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    return (lambda: 3), (), {}


def raises() -> None:
    raise ValueError("no weights here\nand a second line")


def needs_argument(x: int) -> None: ...


def returns_number() -> Any:
    return 3


def returns_pair() -> Any:
    return Counter(8), ()


def returns_no_callable() -> Any:
    return 3, (), {}


def returns_string_for_args() -> Any:
    return Counter(8), "x", {}


def returns_list_for_kwargs() -> Any:
    return Counter(8), (), []


CONFIGS = {"small": 1, "large": 2}
DEFAULT_SIZES = ("1x2", "3x4")


def demo(verify: int | None, **rest: Any) -> int:
    print(verify)
    return 0


def bench(sizes: list[str], only: list[str], config: str, *rest: Any) -> int:
    print(*sizes, config)
    return 0


def model(only: list[str], json: Any) -> int:
    """Stands for the benchmark of a model."""
    print(*only, json)
    return 0
