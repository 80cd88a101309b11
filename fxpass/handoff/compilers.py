"""What compiles a region: Inductor, AOTAutograd alone, or nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from .regions import Compile


def compiler(name: str, inductor: Mapping[str, Any]) -> Compile:
    """The compiler called ``name``: ``inductor`` (with these config patches), ``aot_eager`` or ``eager``."""
    if name == "eager":
        return _eager
    if name == "aot_eager":
        return _aot_eager
    return functools.partial(_inductor, patches=dict(inductor))


def _eager(gm: fx.GraphModule, fakes: Sequence[Any]) -> Callable[..., Any]:
    return gm.forward


def _aot_eager(gm: fx.GraphModule, fakes: Sequence[Any]) -> Callable[..., Any]:
    from torch._dynamo.backends.debugging import aot_eager

    return aot_eager(gm, list(fakes))


def _inductor(gm: fx.GraphModule, fakes: Sequence[Any], patches: dict[str, Any]) -> Callable[..., Any]:
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(gm, list(fakes), config_patches=patches)
