"""``MODULE:FACTORY`` on the command line names a function that makes a callable to compile, and its arguments; ``-m MODULE`` a
module that is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fxpass.errors import KvfixError
from fxpass.graph.source_lines import is_own, is_users


class TargetError(Exception):
    """The target cannot be used; the message is one line that says why."""


class Target(NamedTuple):
    """What a factory returned: call ``fn(*args, **kwargs)``."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def load(name: str) -> Target:
    """Import and call the factory ``name``, ``package.module:factory``; the working directory is on the path.

    Raises:
        TargetError: there is no such module or factory, it fails, or it returns something else than a callable, its
            positional arguments and its keyword arguments.
    """
    module_name, _, path = name.partition(":")
    if module_name.endswith(".py"):
        module_name = module_name.removesuffix(".py").replace(os.sep, ".")
        raise TargetError(f"{name!r} names a file: write the module, {module_name}:{path}")
    if not module_name or not path:
        raise TargetError(f"{name!r} is not of the form MODULE:FACTORY, such as package.module:function")
    _look_here()
    try:
        factory: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"cannot import {module_name!r}: {one_line(error)}") from error
    for attribute in path.split("."):
        try:
            factory = getattr(factory, attribute)
        except AttributeError:
            raise TargetError(f"{module_name!r} has no {path!r}") from None
    if not callable(factory):
        kind = type(factory).__name__
        raise TargetError(f"{name} is of type {kind}, not a function that returns (callable, args, kwargs)")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise TargetError(f"{name}() failed: {one_line(error)}") from error
    return _checked(name, made)


def check_module(name: str) -> None:
    """Raise `TargetError` where ``python -m name`` finds nothing to run."""
    _look_here()
    try:
        spec = importlib.util.find_spec(name)  # which imports the packages that it is in
        if spec is not None and spec.submodule_search_locations is not None:
            name, spec = f"{name}.__main__", importlib.util.find_spec(f"{name}.__main__")
    except (Exception, SystemExit) as error:
        raise TargetError(f"cannot import {name!r}: {one_line(error)}") from error
    if spec is None:
        raise TargetError(f"no module {name}")


def _look_here() -> None:
    """Put the working directory on the path, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def _checked(name: str, made: Any) -> Target:
    if not isinstance(made, (tuple, list)) or len(made) != 3:
        size = f" of length {len(made)}" if isinstance(made, (tuple, list)) else ""
        raise TargetError(f"{name}() returned type {type(made).__name__}{size}, not (callable, args, kwargs)")
    fn, args, kwargs = made
    if not callable(fn):
        raise TargetError(f"{name}() returned type {type(fn).__name__} in place of the callable")
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise TargetError(f"{name}() returned type {type(args).__name__} in place of the tuple of arguments")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise TargetError(f"{name}() returned type {type(kwargs).__name__} in place of the dict of keyword arguments")
    return Target(fn, tuple(args), dict(kwargs))


def one_line(error: BaseException) -> str:
    """Type, first line and place of an exception; of one that the backend has raised, all lines."""
    error = getattr(error, "inner_exception", error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join([*lines[:1], *(["; ".join(lines[1:])] if isinstance(error, KvfixError) else [])])
    places = [f for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    theirs = [f for f in places if not is_own(f.filename)]  # a place in our own code says nothing about an error of the user's
    place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
