"""The user's names for what Dynamo calls by its source.

    L['self']._modules['layers']._modules['3']._buffers['k_cache']        layers.3.k_cache
    L['used'][0]                                                          used[0]
    __load_module('fxpass....functions').read(L['used'], 0)               used[0]
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable

from torch import fx

from fxpass.torch_internals.dynamo.inputs.origins import name_of

_MIRROR = re.compile(r"__load_module\('fxpass\.[\w.]*'\)\.read\((?P<base>.*?), (?P<index>\d+)\)")
_OWNED = re.compile(r"(?:\._|\.__dict__\['_)(?:modules|buffers|parameters)(?:'\])?\['([^']*)'\]")
_PATH = re.compile(r"(?:(?<![^\s(])/(?=[^\s/])(?:[^/:\n]+/)*|[^ (]*/)([^/:\n]+/[^/ ]+:\d+)")
"""A path whose folders may have spaces in their names, if it begins at the root."""
_LOCAL = re.compile(r"\b[LG]\['(\w+)'\]")


def user_name(text: str) -> str:
    """``text``, a source of Dynamo's or an expression over such, with names as the user writes them."""
    text = _MIRROR.sub(lambda m: f"{m['base']}[{m['index']}]", text)
    text = _LOCAL.sub(r"\1", _OWNED.sub(r".\1", text))
    return re.sub(r"\bself\.(?=\w)", "", text)


def user_names(texts: Iterable[str]) -> dict[str, str]:
    """The `user_name` of each of ``texts``; texts that would get one name stay as they are."""
    names = {text: user_name(text) for text in texts}
    often = collections.Counter(names.values())
    return {text: name if often[name] == 1 else text for text, name in names.items()}


def input_name(node: fx.Node) -> str:
    """What the user calls the input ``node`` of a graph."""
    return user_name(name_of(node))


def shortened(text: str) -> str:
    """Paths in ``text`` with their last two components alone."""
    return _PATH.sub(r"\1", text)


def is_owned(text: str) -> bool:
    """Whether a source of Dynamo's is a parameter or a buffer of a module."""
    return _OWNED.search(text) is not None
