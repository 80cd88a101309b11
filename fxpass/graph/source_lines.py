"""The user's line that a node of a graph was made of.

    attention.py:123    k, v = cache[layer]
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

_TORCH, _PYTHON = os.path.dirname(torch.__file__) + os.sep, sysconfig.get_path("stdlib") + os.sep
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_PACKAGES = {"site-packages", "dist-packages"}
"""Folders of what is installed, which lie in Python's own."""
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)\n\s*(?P<code>.*)')


def is_users(file: str) -> bool:
    """Whether ``file`` is code of a user's, or of a package that a user has installed: neither torch's nor Python's own."""
    is_pythons = file.startswith(_PYTHON) and _PACKAGES.isdisjoint(file.removeprefix(_PYTHON).split(os.sep)[:1])
    return not is_pythons and not file.startswith((_TORCH, "<frozen"))


def is_own(file: str, room: str = "") -> bool:
    """Whether ``file`` is code of kvfix itself; where a ``room`` is named, of that package in it."""
    return file.startswith(os.path.join(_OWN, room, ""))


def source_of(node: fx.Node) -> str:
    """``file:line`` of the user's code that made ``node``, or an empty string."""
    return source_in(node.meta)


def source_in(meta: Mapping[str, Any]) -> str:
    """``file:line`` of the user's code for the ``meta`` of a node, or an empty string."""
    frame = _frame(meta)
    return f"{frame['file']}:{frame['line']}" if frame else ""


def code_of(node: fx.Node) -> str:
    """The text of the user's line that made ``node``, or an empty string."""
    frame = _frame(node.meta)
    return frame["code"].strip() if frame else ""


def with_line(node: fx.Node) -> fx.Node:
    """``node`` if it has a line; otherwise the first node with a line that uses it. A number that is made of numbers has no
    line."""
    todo = [node]
    for one in todo:
        if source_of(one):
            return one
        todo += [user for user in one.users if user not in todo]
    return node


def _frame(meta: Mapping[str, Any]) -> re.Match[str] | None:
    """The innermost frame of a stack trace that is a user's; the innermost of all if none is. That of ``F.pad`` is torch's."""
    trace = end = meta.get("stack_trace") or ""
    innermost = None
    while (start := end.rfind('File "')) >= 0:
        frame, end = _FRAME.match(trace, start), trace[:start]
        if frame and is_users(frame["file"]):
            return frame
        innermost = innermost or frame
    return innermost
