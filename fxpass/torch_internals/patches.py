"""How functions of torch are replaced: a hook of ours is called instead, and is given the stock function.

A fault in a hook does not cost the user the call. The stock function is called then, and one warning tells of the fault. What
the stock function raises is passed on.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fxpass import reasons
from fxpass.errors import KvfixError, KvfixWarning, warn
from fxpass.torch_internals.contracts import TABLE, internal
from fxpass.torch_internals.lookup import resolve

_RAISED_ON_PURPOSE = (internal("torch._dynamo.exc.TorchDynamoException"), KvfixError, KvfixWarning)
"""Exceptions that hooks raise on purpose. They tell Dynamo what to do next, or the user what went wrong."""


def patch(name: str, hook: Callable[..., Any], contain: bool = True) -> None:
    """Put ``hook`` before the function called ``name`` in `contracts.TABLE`, as `patch_attribute` does.

    Raises:
        Missing: this torch has no such function.
    """
    TABLE[name].resolve()
    owner, _, attribute = name.rpartition(".")
    patch_attribute(resolve(owner), attribute, hook, contain)


def replace(name: str, made_of: Callable[[Any], Any]) -> None:
    """Put ``made_of(stock)`` in the place of the function called ``name`` in `contracts.TABLE`.

    This is for a function that is called so often that `patch`, which contains faults, would take longer than the function.

    Raises:
        Missing: this torch has no such function.
    """
    owner, _, attribute = name.rpartition(".")
    owner, stock = resolve(owner), TABLE[name].resolve()
    setattr(owner, attribute, made_of(stock))
    _undo.append(functools.partial(setattr, owner, attribute, stock))


def is_patched(name: str) -> bool:
    """Whether a hook stands before the function called ``name``, which `patch` has put there and `uninstall` takes away."""
    owner, _, attribute = name.rpartition(".")
    return any(undo.args[:2] == (resolve(owner), attribute) for undo in _undo)


def on_uninstall(call: Callable[[], None]) -> None:
    """Make ``call`` once what is patched from here on has been put back."""
    _undo.append(functools.partial(call))


def uninstall() -> None:
    """Put back every function that was patched, the last one first."""
    while _undo:
        _undo.pop()()


def patch_attribute(owner: Any, name: Any, hook: Callable[..., Any], contain: bool = True) -> None:
    """Let ``owner.name(*args)``, or ``owner[name](*args)`` of a list or dict, call ``hook(stock, *args)``; ``stock`` is
    the function that was there before. What the hook raises is contained; without ``contain`` it goes to the user."""
    read, write = (operator.getitem, operator.setitem) if isinstance(owner, (list, dict)) else (getattr, setattr)
    stock = read(owner, name)
    run = functools.partial(_contained, hook, stock) if contain else functools.partial(hook, stock)

    @functools.wraps(stock)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    write(owner, name, wrapped)
    _undo.append(functools.partial(write, owner, name, stock))


def _contained(hook: Callable[..., Any], stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of ``hook``, or of ``stock`` if the hook fails. ``stock`` is called once, even if the hook fails after calling
    it.

    Dynamo comes by here at every jump that it traces.
    """
    results: list[Any] = []
    errors: list[BaseException] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            results.append(stock(*args, **kwargs))
        except BaseException as error:
            errors.append(error)
            raise
        return results[-1]

    try:
        return hook(counted, *args, **kwargs)
    except Exception as error:
        if isinstance(error, _RAISED_ON_PURPOSE) or any(error is theirs for theirs in errors):
            raise
        tell(hook, error)
    return results[-1] if results else stock(*args, **kwargs)


def tell(hook: Any, error: Exception) -> None:
    """Note for the report that ``hook`` has failed, and warn of it if that is new."""
    name = getattr(hook, "func", hook).__qualname__
    fault = f"{name}: {type(error).__name__}: {error}"
    if fault not in _faults:
        _faults.append(fault)
    _failed[name] += 1
    if _failed[name] == 1:
        how = "".join(traceback.format_exception(error))
        warn(reasons.HOOK_FAILED, stacklevel=5, hook=name, error=how)


def failures() -> int:
    """How often hooks have failed since the last reset."""
    return _failed.total()


def take_faults() -> list[str]:
    """The faults of hooks since the last call: each names the hook and its error."""
    taken, _faults[:] = list(_faults), []
    return taken


def forget() -> None:
    """Forget which faults have been seen, so that each is told of again."""
    _faults.clear()
    _failed.clear()


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """If the block fails, take out what it has patched."""
    before = len(_undo)
    try:
        yield
    except BaseException:
        while len(_undo) > before:
            _undo.pop()()
        raise


_undo: list[functools.partial[None]] = []
"""For each `patch_attribute` a call that puts ``stock`` back, and the calls of `on_uninstall`."""
_faults: list[str] = []
_failed: Counter[str] = Counter()
"""How often each hook has failed. A warning has told of the first time."""
