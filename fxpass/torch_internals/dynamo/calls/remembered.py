"""A function that remembers what it has returned is traced once for the same arguments.

    @functools.lru_cache
    def recipe(pattern: str) -> Recipe: ...       stock: Dynamo traces the function at each call
                                                  kvfix: at the first call in a graph; from then on the result is known
    for layer in layers:
        x = apply(recipe("b (h d) -> b h d"), x)

Eager returns the very object of the first call, too, as long as the function has room for it. All layers of a model call such
functions with the same arguments. The guards that Dynamo makes at the first call hold for all of them.
"""

from __future__ import annotations

from typing import Any

import torch

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch

_TYPES = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
"""Arguments of these types are the same where their ``repr`` is; so -0.0 is another number than 0.0, and True than 1."""


def install() -> None:
    """Install the hook, which acts while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.functions.WrapperUserFunctionVariable.call_function", _call_function)


def _call_function(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    compilation = current_compilation()
    if compilation is None or not _remembers(self.wrapper_obj):
        return stock(self, tx, args, kwargs)
    known, tracer, function = compilation.remembered, tx.output.current_tracer, self.wrapper_obj
    given = tuple(_key(value, known) for value in (*self.self_args(), *args, *kwargs.values()))
    key = tracer, function, given, tuple(kwargs)
    if None not in given and key in known:
        known[key] = known.pop(key)  # the latest
        return known[key]
    before = len(tracer.graph.nodes)
    result = stock(self, tx, args, kwargs)
    if None in given or len(tracer.graph.nodes) != before:  # what it has computed might be written to
        _keep(known, (tracer, function, object()), None)
    else:
        _keep(known, key, result)
    return result


def _keep(known: dict[Any, Any], key: tuple[Any, ...], result: Any) -> None:
    """Remember ``result``, and forget what the function, which is the second part of a ``key``, has forgotten by then."""
    known[key] = result
    own, most = [other for other in known if other[1] is key[1]], key[1].cache_parameters()["maxsize"]
    if most is not None and len(own) > most:
        del known[own[0]]


def _remembers(function: Any) -> bool:
    """Whether ``function`` has a cache as of `functools.lru_cache`, which keeps what it returned."""
    parameters = getattr(function, "cache_parameters", None)
    return parameters is not None and parameters()["maxsize"] != 0


def _key(variable: Any, known: dict[Any, Any]) -> Any:
    """What tells the Dynamo ``variable`` from other arguments; None if it is neither a constant nor such a result itself."""
    value = realized(variable)
    if any(value is result for result in known.values()):
        return "result", id(value)
    return _constant(value.as_python_constant()) if value.is_python_constant() else None


def _constant(value: Any) -> Any:
    if type(value) in (tuple, torch.Size):
        parts = [_constant(part) for part in value]
        return None if None in parts else (type(value), *parts)
    return (type(value), repr(value)) if type(value) in _TYPES else None
