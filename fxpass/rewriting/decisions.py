"""What was decided about each place that uses a position, and the reason where it was refused."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Literal

from torch import fx

from fxpass import reasons
from fxpass.analysis.flow import chain
from fxpass.analysis.positions import Positions
from fxpass.analysis.sites import SliceSite, is_slice
from fxpass.analysis.unsliced import Unsliced
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.expression_texts import expression_text

from .edits.assertions import asserts_position

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Decision:
    """What was decided about one place that uses a position.

    chain: what the position is made of (`analysis.flow.chain`).
    base, rows: for a slice, the fake tensor that is sliced, and that of the slice.
    taken: for a read whose number of rows moves, the size of the axis that is read in its place.
    """

    kind: Literal["read", "write", "scalar", "predicate"]
    node: fx.Node
    buffer: fx.Node | None
    dim: int | None
    position: str
    rewritten: bool
    reason: str = ""
    chain: list[tuple[str, fx.Node]] = dataclasses.field(default_factory=list)
    base: Any = None
    rows: Any = None
    taken: Any = None


def decided(
    node: fx.Node, site: SliceSite | None, positions: Positions, reason: str = "", taken: Any = None
) -> Decision:
    """The decision that ``node`` is rewritten, which reads as many rows as are ``taken``; or why it is not."""
    used = [i for i in node.all_input_nodes if i in positions]
    position = ", ".join(dict.fromkeys(expression_text(i) for i in used))
    made = chain(node, positions)
    if not is_slice(node):
        kind: Literal["scalar", "predicate"] = "predicate" if asserts_position(node, positions) else "scalar"
        return Decision(kind, node, None, None, position, not reason, reason, made)
    writes = any(node in aliases.written(u) for u in node.users) if site is None else bool(site.writers)
    base, dim = node.args[0], node.args[1]
    assert isinstance(base, fx.Node) and isinstance(dim, int)
    buffer = site.buffer if site is not None else aliases.root(base)
    what: Literal["read", "write"] = "write" if writes else "read"
    values = base.meta["val"], node.meta["val"]
    return Decision(what, node, buffer, dim, position, not reason, reason, made, *values, taken)


def left_alone(one: Unsliced, positions: Positions) -> Decision:
    """The decision that a part of a buffer stays as it is."""
    dim = one.node.args[1] if is_slice(one.node) else None
    position = ", ".join(map(expression_text, one.sizes))
    made = chain(one.node, positions)
    return Decision("read", one.node, aliases.root(one.base), dim, position, False, one.reason, made)  # type: ignore[arg-type]


def reason(error: Exception) -> str:
    """What the report says of a site that failed with ``error``. An error that is no refusal is a fault of ours, and logged."""
    if isinstance(error, Refusal):
        return str(error)
    logger.warning("kvfix: a site is left as it is, after an unexpected error", exc_info=error)
    return reasons.SITE_FAILED.text(error=f"{type(error).__name__}: {error}")


class SweepFailed(Exception):
    """The sweep failed with ``error``, because of the nodes in ``blamed``: sites, or a single number."""

    def __init__(self, error: Exception, blamed: set[fx.Node]) -> None:
        super().__init__(str(error))
        self.error, self.blamed = error, blamed
