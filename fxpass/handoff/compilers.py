"""What compiles a region: Inductor, AOTAutograd alone, or nothing."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from fxpass.errors import KvfixWarning

Compile = Callable[[fx.GraphModule, Sequence[Any], Sequence[int] | None], Callable[..., Any]]
"""``compile(gm, fakes, static)``: a callable for ``gm``. ``static`` lists the inputs with static addresses; None for a
part with symbolic sizes, which is not recorded."""


def compiler(name: str, inductor: Mapping[str, Any]) -> Compile:
    """The compiler called ``name``: ``inductor`` (with these config patches), ``aot_eager`` or ``eager``."""
    if name == "inductor":
        return functools.partial(_inductor, patches=dict(inductor))
    return _aot_eager if name == "aot_eager" else _eager


def as_dynamo_gave_it(name: str, inductor: Mapping[str, Any]) -> Callable[[fx.GraphModule, Sequence[Any]], Any]:
    """The same compilers for a graph straight from Dynamo, which brings its own tracing context and input metadata."""
    if name != "inductor":
        return lambda gm, inputs: compiler(name, inductor)(gm, inputs, None)

    from torch._inductor.compile_fx import compile_fx

    return lambda gm, inputs: compile_fx(gm, list(inputs), config_patches=dict(inductor))


def _eager(gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None) -> Callable[..., Any]:
    return gm.forward


def _aot_eager(gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None) -> Callable[..., Any]:
    from torch._dynamo.backends.debugging import aot_eager

    return aot_eager(gm, list(fakes))


def _inductor(
    gm: fx.GraphModule, fakes: Sequence[Any], static: Sequence[int] | None, patches: dict[str, Any]
) -> Callable[..., Any]:
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    if static is None:
        patches = {**patches, "triton.cudagraphs": False}

    lifted = len({n.target for n in gm.graph.nodes if n.op == "get_attr"})  # constants, which AOTAutograd puts first

    def inner_compile(module: Any, inputs: Sequence[Any], **kwargs: Any) -> Any:
        if static is not None and len(inputs) == lifted + len(fakes):
            kwargs["static_input_idxs"] = [*range(lifted), *(lifted + i for i in static)]
        elif static:
            warnings.warn("kvfix: inputs alias one another; the core is not recorded", KvfixWarning, stacklevel=2)
            kwargs["cudagraphs"] = False
        return compile_fx_inner(module, inputs, **kwargs)

    return compile_fx(gm, list(fakes), inner_compile=inner_compile, config_patches=patches)
