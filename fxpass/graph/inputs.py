"""Where an input of a graph comes from. The notes are in ``meta``, so each copy of a graph has them; this file alone uses them.

    normal form     L_x_        was given as Dynamo's placeholder L_x_
    padded          clone       stands for the input that it pads
    what grows      x_buffer    is the buffer of L['x']
"""

from __future__ import annotations

from torch import fx

_GIVEN, _GROWS = "kvfix_given_as", "kvfix_buffer_of"


def note_given(node: fx.Node, before: fx.Node) -> None:
    """Note that ``node`` stands for ``before``, an input of a graph that came before, or for what that stands for."""
    node.meta[_GIVEN] = given_as(before)


def given_as(node: fx.Node) -> fx.Node:
    """The input that ``node`` stands for in the graph from Dynamo; ``node`` itself where nothing was noted."""
    return node.meta.get(_GIVEN, node)  # type: ignore[no-any-return]


def note_buffer(node: fx.Node, name: str) -> None:
    """Note that the input ``node`` is the buffer of what grows, the input called ``name``."""
    node.meta[_GROWS] = name


def buffer_of(node: fx.Node) -> str | None:
    """What the input is called of which ``node`` is the buffer; None where it is none."""
    return node.meta.get(_GROWS)
