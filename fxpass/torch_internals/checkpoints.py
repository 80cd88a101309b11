"""A `ShapeEnv` is put back to where it was: what has been guarded since, and what that told of symbols, is forgotten.

    undo = checkpoint(env)
    ...                          a rewrite is tried: it adds guards, replaces symbols by others, narrows ranges, makes symbols
    undo()                       nothing of this is left, and what was made of the new symbols must not be used any more

The methods of the environment remember their answers. One of them remembers that a condition has been guarded, and would not
guard it again, so all of this is forgotten, too.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSet
from typing import Any

_VERSIONS = "_version_counter"
"""How the names of the counters end that tell symbolic numbers whether anything has changed. These never go back."""


def checkpoint(env: Any) -> Callable[[], None]:
    """A function that puts ``env`` back to its state of now. It may be called more than once."""
    state = {name: _state(value) for name, value in vars(env).items() if not name.endswith(_VERSIONS)}

    def undo() -> None:
        for name, value in state.items():
            setattr(env, name, value())
        for name in [name for name in vars(env) if name.endswith(_VERSIONS)]:
            setattr(env, name, getattr(env, name) + 1)
        for method in (method for cls in type(env).__mro__ for method in vars(cls).values()):
            if hasattr(method, "cache_clear"):
                method.cache_clear()

    return undo


def _state(value: Any) -> Callable[[], Any]:
    """A function that gives ``value`` as it is now. A container is still the same object then, since others may hold it."""
    if isinstance(value, dict):
        items = {key: _state(own) for key, own in value.items()}
        return lambda: _filled(value, lambda: dict.update(value, {key: own() for key, own in items.items()}))
    if isinstance(value, (list, MutableSet)):
        members, add = list(value), value.append if isinstance(value, list) else value.add
        return lambda: _filled(value, lambda: [add(member) for member in members])
    return lambda: value


def _filled(container: Any, fill: Callable[[], Any]) -> Any:
    container.clear()
    fill()
    return container
