"""What the cut leaves outside of the static core, and why.

    k = torch.cat([k, new])        ->        KV201 the epilogue is not static: 7 ops, 2 of them products or attention;
    scores = q @ k.T                         L['k'].size()[1] grows

A part without products, the scaler of a growing series, costs next to nothing, and has no reason.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from fxpass import reasons
from fxpass.analysis.kinds import Symbol
from fxpass.graph.numbers import symbols as symbols_in

from .split import Part, is_heavy, values_of


def outside(parts: Sequence[Part], static: Set[Any], symbols: Sequence[Symbol], refused: Sequence[str]) -> list[str]:
    """A reason for each of ``parts`` that does heavy work and is not static; ``refused`` are the positions of sites that stay
    as they were."""
    heavy = {part.name: sum(map(is_heavy, part.gm.graph.nodes)) for part in parts if not part.static}
    return [_why(part, heavy[part.name], static, symbols, refused) for part in parts if heavy.get(part.name)]


def _why(part: Part, heavy: int, static: Set[Any], symbols: Sequence[Symbol], refused: Sequence[str]) -> str:
    nodes = [n for n in part.gm.graph.nodes if n.op not in ("placeholder", "output")]
    moving = sorted({str(s) for n in part.gm.graph.nodes for v in values_of(n) for s in symbols_in(v) - static})
    known = {symbol.symbol: symbol for symbol in symbols}
    said = {"part": part.name, "ops": len(nodes), "heavy": heavy}
    if refused:
        return reasons.OUTSIDE_REFUSED.text(**said, of=", ".join(dict.fromkeys(refused)))
    of = ", ".join(dict.fromkeys(known[name].of if name in known else name for name in moving))
    grows = any(name in known and known[name].kind == "growth" for name in moving)
    return (reasons.OUTSIDE_GROWS if grows else reasons.OUTSIDE_MOVES).text(**said, of=of or "a size")
