"""How torch's own functions are taught: each is put behind a hook that is given it."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from fxpass.torch_internals.contracts import TABLE, resolve


def patch(name: str, hook: Callable[..., Any]) -> None:
    """Put ``hook`` before the function called ``name`` in `contracts.TABLE`.

    Raises:
        Missing: this torch has no such function.
    """
    TABLE[name].resolve()
    owner, _, attribute = name.rpartition(".")
    wrap(resolve(owner), attribute, hook)


def uninstall() -> None:
    """Put back all that was wrapped, the last first."""
    while _undo:
        _undo.pop()()


def wrap(owner: Any, name: Any, hook: Callable[..., Any]) -> None:
    """Let ``owner.name(*args)``, or ``owner[name](*args)`` of a list, call ``hook(stock, *args)``, ``stock`` being what
    stood there."""
    read, write = (operator.getitem, operator.setitem) if isinstance(owner, list) else (getattr, setattr)
    stock = read(owner, name)

    @functools.wraps(stock)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return hook(stock, *args, **kwargs)

    write(owner, name, wrapped)
    _undo.append(functools.partial(write, owner, name, stock))


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


_undo: list[Callable[[], None]] = []
"""For each `wrap`, what puts ``stock`` back."""
