"""How torch's own functions are taught: each is put behind a hook that is given it.

A hook is ours, and a fault in it must not cost the user the call: what stood there before is called then, and one warning
tells. What torch itself raises on the way goes on to whom it is for.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from fxpass import reasons
from fxpass.errors import KvfixError, KvfixWarning, warn
from fxpass.torch_internals.contracts import TABLE, internal, resolve

_OURS_TO_RAISE = (internal("torch._dynamo.exc.TorchDynamoException"), KvfixError, KvfixWarning)
"""How Dynamo is told what to do next, and the user what went wrong."""


def patch(name: str, hook: Callable[..., Any], contain: bool = True) -> None:
    """Put ``hook`` before the function called ``name`` in `contracts.TABLE`, as `patch_attribute` does.

    Raises:
        Missing: this torch has no such function.
    """
    TABLE[name].resolve()
    owner, _, attribute = name.rpartition(".")
    patch_attribute(resolve(owner), attribute, hook, contain)


def is_patched(name: str) -> bool:
    """Whether a hook stands before the function called ``name``, which `patch` has put there and `uninstall` takes away."""
    owner, _, attribute = name.rpartition(".")
    return any(undo.args[:2] == (resolve(owner), attribute) for undo in _undo)


def uninstall() -> None:
    """Put back every function that was patched, the last one first."""
    while _undo:
        _undo.pop()()


def patch_attribute(owner: Any, name: Any, hook: Callable[..., Any], contain: bool = True) -> None:
    """Let ``owner.name(*args)``, or ``owner[name](*args)`` of a list, call ``hook(stock, *args)``, ``stock`` being what
    stood there. A fault of the hook is contained, unless ``contain`` says that it is meant for the user."""
    read, write = (operator.getitem, operator.setitem) if isinstance(owner, list) else (getattr, setattr)
    stock = read(owner, name)
    run = functools.partial(_contained, hook, stock) if contain else functools.partial(hook, stock)

    @functools.wraps(stock)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    write(owner, name, wrapped)
    _undo.append(functools.partial(write, owner, name, stock))


def _contained(hook: Callable[..., Any], stock: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``hook`` gives; where it fails, what ``stock`` gives, which is called once even if the hook fails behind it."""
    results: list[Any] = []
    errors: list[BaseException] = []

    @functools.wraps(stock)
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
        if isinstance(error, _OURS_TO_RAISE) or any(error is theirs for theirs in errors):
            raise
        _tell(hook, error)
    return results[-1] if results else stock(*args, **kwargs)


def _tell(hook: Any, error: Exception) -> None:
    """Note for the report that ``hook`` has failed, and warn the first time."""
    name = getattr(hook, "func", hook).__qualname__
    fault = f"{name}: {type(error).__name__}: {error}"
    if fault not in _faults:
        _faults.append(fault)
    if name not in _told:
        _told.add(name)
        how = "".join(traceback.format_exception(error))
        warn(reasons.HOOK_FAILED, stacklevel=5, hook=name, error=how)


def take_faults() -> list[str]:
    """The faults of hooks since they were last taken: the hook, and its error."""
    taken, _faults[:] = list(_faults), []
    return taken


def forget() -> None:
    """Forget which faults have been seen: each is told again."""
    _faults.clear()
    _told.clear()


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Should the block fail, what it has wrapped stands as before."""
    before = len(_undo)
    try:
        yield
    except BaseException:
        while len(_undo) > before:
            _undo.pop()()
        raise


_undo: list[functools.partial[None]] = []
"""For each `patch_attribute` a call that puts ``stock`` back."""
_faults: list[str] = []
_told: set[str] = set()
"""The hooks of which a warning has told."""
