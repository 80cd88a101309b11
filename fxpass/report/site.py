"""One place of a graph that uses a position, as a report shows it."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from fxpass import reasons


class Cost(NamedTuple):
    """The bytes that a read takes per step: as the model wrote it (``before``), ``now``, and those of the ``mask`` beside
    it."""

    before: int
    now: int
    mask: int


@dataclasses.dataclass(frozen=True)
class Site:
    """One place that uses a position.

    kind: "read" or "write" of a slice, "scalar" for tensor arithmetic on a position, "predicate" for a branch or an
        assertion on one, which becomes a guard.
    buffer: the graph input that is sliced, as the user writes it (``L['cache']._keys``); empty for the other kinds.
    dim: the sliced dim; None for the other kinds.
    position: the position expression, over graph symbols (``s0 + 1``).
    source: file and line of the user's code, ``path/to/attention.py:123``; empty when unknown.
    decision: "rewritten" or "refused".
    reason: why it was refused, an id and a text (see `fxpass.reasons`); empty otherwise.
    code: the text of the source line; empty when unknown.
    size: dtype and shape of the buffer, ``f32[2, 64, 8]``.
    chain: what the position is made of, from an element of an index tensor, or an int, on.
    cost: of a read, see `Cost`; None for the other kinds.
    node: what the node of the slice is called in `Report.graph_before`; empty for a predicate.
    """

    kind: Literal["read", "write", "scalar", "predicate"]
    buffer: str
    dim: int | None
    position: str
    source: str
    decision: Literal["rewritten", "refused"]
    reason: str = ""
    code: str = ""
    size: str = ""
    chain: tuple[str, ...] = ()
    cost: Cost | None = None
    node: str = ""

    @property
    def id(self) -> str:
        """The id of the reason, such as "KV101"; empty where nothing was refused."""
        found = reasons.of(self.reason)
        return found.id if found else ""
