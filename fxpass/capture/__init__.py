"""Capture: everything that touches Dynamo, and what a graph is brought to before it is analysed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from fxpass.errors import KvfixWarning
from fxpass.options import Options

from .advance import Advance
from .attributes import lift, restore
from .composites import take_apart
from .dynamism import Restart, expect, forget, generalize
from .normal_form import Unfit, fake_inputs, normal_form
from .origins import name_of, origins

__all__ = [
    "Advance",
    "Restart",
    "Unfit",
    "expect",
    "fake_inputs",
    "forget",
    "generalize",
    "install",
    "lift",
    "name_of",
    "normal_form",
    "origins",
    "restore",
    "take_apart",
]

FITS = ("2.11", "2.12", "2.13", "2.14", "2.15")
"""The torch releases that the hooks are written for; 2.11, 2.13 and 2.15 are tested."""


@functools.cache
def install(backend: Callable[..., Any], begin: Callable[[Options], None]) -> None:
    """Install the Dynamo hooks for frames compiled with ``backend``; `torch.compile` calls ``begin`` with its options.

    On a torch that they do not fit they stay off, with one warning: models compile as without kvfix's capture, and
    positions held in tensors break the graph.
    """
    release = ".".join(torch.__version__.split(".")[:2])
    try:
        if release not in FITS:
            raise ImportError(f"torch {release} is none of {', '.join(FITS)}")
        from . import hooks, precompile, source

        hooks.install(lambda compiler_fn: innermost(compiler_fn) is backend)
        hooks.parse_options_early(backend, begin)
        source.install()
        precompile.install()
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"kvfix: positions in tensors are not captured with this torch: {error}", KvfixWarning, stacklevel=2
        )


def innermost(compiler_fn: Any) -> Any:
    """The backend function under Dynamo's and torch.compile's wrappers."""
    for name in ("_torchdynamo_orig_backend", "_compiler_fn", "compiler_fn"):
        inner = getattr(compiler_fn, name, None)
        if inner is not None:
            return innermost(inner)
    return compiler_fn
