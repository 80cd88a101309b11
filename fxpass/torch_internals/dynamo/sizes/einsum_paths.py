"""The order of an einsum's contractions asks nothing about sizes that move.

With the package opt_einsum installed, `torch.einsum` of three and more operands looks for the cheapest order. In a graph this
compares sizes, each comparison is a guard, and a guard ends at the next position:

    torch.einsum("bhqk,bkc,hcd->bqhd", weights, latents[:, :end], up)      stock: a graph for each end
                                                                           kvfix: the cheapest order for the end that is seen
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from fxpass.graph.numbers import hint
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.symbols import free_unbacked_symbols


def install() -> None:
    """Install the hook, which acts while a frame is compiled for kvfix."""
    patch("torch.backends.opt_einsum.get_opt_einsum", _package)


class _Paths:
    """What `torch.einsum` asks of the package: the order of contractions, here for the sizes that are seen."""

    def __init__(self, package: Any) -> None:
        self.contract_path = functools.partial(_path, package.contract_path)


def _package(stock: Callable[[], Any]) -> Any:
    package = stock()
    return package if package is None or current_compilation() is None else _Paths(package)


def _path(stock: Callable[..., Any], equation: str, *operands: torch.Tensor, **kwargs: Any) -> Any:
    shapes = [tuple(operand.shape) for operand in operands]
    if any(free_unbacked_symbols(size) for shape in shapes for size in shape):
        return stock(equation, *operands, **kwargs)
    return stock(equation, *[tuple(map(hint, shape)) for shape in shapes], shapes=True, **kwargs)
