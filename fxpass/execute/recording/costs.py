"""What a recording asks for in every step, as reasons for the report: what is recorded, copied and written back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.graph.numbers import size_in_bytes


def recording_costs(
    copied: Sequence[Sequence[fx.Node]], carried: Sequence[fx.Node], variants: Iterable[Any]
) -> Iterator[str]:
    """The reasons for a core of which ``copied`` results leave the recording's memory and ``carried`` index tensors are written
    back, with a recording for each value of the ``variants``."""
    anew = ", ".join(sorted(map(str, variants)))
    yield reasons.RECORDED.text(anew=f", anew for each value of {anew}" if anew else "")
    results = [node for group in copied for node in group]
    if results:
        yield reasons.COPIED_OUT.text(results=len(results), size=sum(map(_bytes, results)))
    if carried:
        yield reasons.WRITTEN_BACK.text(tensors=len(carried), size=sum(map(_bytes, carried)))


def _bytes(node: fx.Node) -> int:
    value = node.meta["val"]
    return size_in_bytes(value) if isinstance(value, torch.Tensor) else 0
