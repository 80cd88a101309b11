"""Where an input of a graph comes from. The notes are in ``meta``, so that each copy of a graph has them. Only this file reads
and writes them.

    normal form     L_x_        was given as Dynamo's placeholder L_x_
    padded          clone       stands for the input that it pads
    what grows      x_buffer    is the buffer of L['x']
"""

from __future__ import annotations

from typing import Any

from torch import fx

_GIVEN, _GROWS = "kvfix_given_as", "kvfix_buffer_of"
_STATIC = "_dynamo_static_input_type"


def note_given(node: fx.Node, before: fx.Node) -> None:
    """Note that ``node`` stands for ``before``, an input of an earlier graph, or for the input that ``before`` stands for."""
    node.meta[_GIVEN] = given_as(before)


def given_as(node: fx.Node) -> fx.Node:
    """The input that ``node`` stands for in the graph from Dynamo; ``node`` itself where nothing was noted."""
    return node.meta.get(_GIVEN, node)  # type: ignore[no-any-return]


def dynamo_source(node: fx.Node) -> Any:
    """Dynamo's source of the input ``node``: how the frame reaches it. None where Dynamo has not made it."""
    return getattr(given_as(node).meta.get("grapharg"), "source", None)


def note_static(node: fx.Node) -> None:
    """Note, as Dynamo does, that the input ``node`` has a static address."""
    node.meta["tensor_dict"] = {_STATIC: "guarded"}


def is_noted_static(node: fx.Node) -> bool:
    """Whether the input ``node`` was marked so, by Dynamo or by `note_static`."""
    return _STATIC in given_as(node).meta.get("tensor_dict", {})


def belongs_to_module(node: fx.Node) -> bool:
    """Whether the input ``node`` is a parameter, a buffer or a number of a module, or was marked static."""
    source = dynamo_source(node)
    return is_noted_static(node) or source is not None and source.guard_source.is_unspecialized_nn_module()


def note_buffer(node: fx.Node, name: str) -> None:
    """Note that the input ``node`` is the buffer of what grows, the input called ``name``."""
    node.meta[_GROWS] = name


def buffer_of(node: fx.Node) -> str | None:
    """The name of the input whose buffer ``node`` is; None if it is no buffer."""
    return node.meta.get(_GROWS)
