"""How Dynamo guards on the sources of `sources`: its guard builder is taught to make a guard manager for each."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from fxpass.torch_internals import lookup_order
from fxpass.torch_internals.dynamo.names import GuardManagerType, Unsupported, skip_code
from fxpass.torch_internals.patches import patch

from . import functions
from .sources import (
    AggregateSource,
    AgreementSource,
    ExpressionSource,
    ItemSource,
    LengthSource,
    NameSource,
    PositionSource,
    full_name,
)

_agreements: weakref.WeakKeyDictionary[Any, dict[str, tuple[list[tuple[int, int]], Any]]] = weakref.WeakKeyDictionary()
"""For each guard builder and each tensor, by name: the pairs of elements that must be equal, and the manager of these."""


def install() -> None:
    """Teach Dynamo's guard builder these sources."""
    patch("torch._dynamo.guards.GuardBuilder.get_guard_manager_from_source", _manager)
    functions.install()
    for function in (full_name, lookup_order.meet):
        skip_code(function.__code__)  # they run from guards, where Dynamo would trace them


def _manager(stock: Any, builder: Any, source: Any) -> Any:
    make = _MANAGERS.get(type(source))
    if make is None:
        return stock(builder, source)
    try:
        known = builder._cached_guard_managers
        if source.name not in known:
            known[source.name] = make(builder, source)
        return known[source.name]
    except Exception as error:  # torch knows no way of its own to guard on it
        functions.tell_once(make, error)
        raise Unsupported(f"kvfix: no guard on {source.name}: {type(error).__name__}: {error}") from error


def _element(builder: Any, source: PositionSource) -> Any:
    """The manager of one element, which Dynamo takes from the mirror's tuple without calling Python."""
    return _values(builder, source).tuple_getitem_manager(
        key=source.index, source=source.name, **_example(builder, source)
    )


def _aggregate(builder: Any, source: AggregateSource) -> Any:
    look = functools.partial(functions.evaluate, source.text)
    return _values(builder, source).lambda_manager(python_lambda=look, source=source.name, **_example(builder, source))


def _expression(builder: Any, source: ExpressionSource) -> Any:
    """The manager of what is computed from one input, or from several, which are all reached from the frame's locals."""
    if not source.others:
        base = builder.get_guard_manager_from_source(source.base)
        look = functools.partial(functions.of_one, source.text)
    else:
        base = builder.guard_manager.root
        where = compile(f"({source.base.name}, {', '.join(source.names)})", source.name, "eval")
        look = functools.partial(functions.of_several, source.text, where, builder.scope["G"])
    return base.lambda_manager(python_lambda=look, source=source.name, **_example(builder, source))


def _found(builder: Any, source: ItemSource | LengthSource) -> Any:
    """The manager of what is reached from the frame's locals: that of a dict whose keys are guarded on takes none of ours."""
    look = functools.partial(functions.found, compile(source.name, source.name, "eval"), builder.scope["G"])
    return builder.guard_manager.root.lambda_manager(python_lambda=look, source=source.name, **_example(builder, source))


def _example(builder: Any, source: Any) -> dict[str, Any]:
    value = builder.get(source)
    builder.guard_tree_values[id(value)] = value  # what torch keeps of the frame, with the guards, in its precompile cache
    return {"example_value": value, "guard_manager_enum": builder.get_guard_manager_type(source, value)}


def _values(builder: Any, source: Any) -> Any:
    """The manager of all elements of a tensor: the mirror is asked once for each tensor."""
    key = f"kvfix.values({source.base.name})"
    managers = builder._cached_guard_managers
    if key not in managers:
        values = functions.values(builder.get(source.base))
        managers[key] = _lambda(builder, source.base, functions.values, key, values)
    return managers[key]


def _agreement(builder: Any, source: AgreementSource) -> Any:
    """The manager that checks all pairs of a tensor's elements at once: each further pair joins those of the first one."""
    asked = _agreements.setdefault(builder, {})
    name = source.base.name
    if name not in asked:
        pairs: list[tuple[int, int]] = []
        look = functools.partial(functions.all_agree, pairs=pairs)
        asked[name] = pairs, _lambda_of(_values(builder, source), look, source.name, True)
    pairs, manager = asked[name]
    pairs.append((source.index, source.other))
    return manager


def _lambda(builder: Any, base: Any, look: Callable[[Any], Any], name: str, value: Any) -> Any:
    return _lambda_of(builder.get_guard_manager_from_source(base), look, name, value)


def _lambda_of(manager: Any, look: Callable[[Any], Any], name: str, value: Any) -> Any:
    return manager.lambda_manager(
        python_lambda=look,
        source=name,
        example_value=value,
        guard_manager_enum=GuardManagerType.GUARD_MANAGER,
    )


def _named(builder: Any, source: NameSource) -> Any:
    return _lambda(builder, source.base, full_name, source.name, builder.get(source))


_MANAGERS: dict[type, Callable[[Any, Any], Any]] = {
    PositionSource: _element,
    AggregateSource: _aggregate,
    ExpressionSource: _expression,
    AgreementSource: _agreement,
    ItemSource: _found,
    LengthSource: _found,
    NameSource: _named,
}
