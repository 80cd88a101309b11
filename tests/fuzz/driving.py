"""How a program is driven: prompts, steps, chunks, resets, rewinds, caches in turn, eager calls and edits, overflow."""

from __future__ import annotations

import dataclasses

from .choices import Choices

LENGTHS = {"steps": (1,), "chunks": (1, 2, 3), "twos": (2,), "first_steps": (1, 1, 2)}
BETWEEN = {
    "nothing": 30, "rewind": 1.5, "reset": 1, "eager": 1, "new": 1, "batch": 1, "zero": 0.5, "negate": 0.7,
    "replace": 0.5, "set_data": 0.5, "copy_index": 0.5, "skip": 0.5, "other": 1.5, "copy_over": 0.5,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Event:
    """One call, after something else has been done to the cache in ``slot``.

    before: what that is; ``rows`` is how many rows the call has, ``eager`` that it is not compiled, ``to`` where positions go.
    """

    slot: int
    rows: int
    before: str = "nothing"
    eager: bool = False
    to: int = 0


def events(pick: Choices, capacity: int) -> list[Event]:
    """Calls up to about the capacity, sometimes past it."""
    how = pick.weighed("drive", {"steps": 6, "chunks": 2, "twos": 1, "first_steps": 1})
    prompt = pick.pick("prompt", (3, 1, 2, 4))
    calls = pick.pick("calls", (4, 5, 6, 8, 10), (4, 4, 2, 1, 0.7))
    busy = pick.pick("busy", (False, True), (1, 1))
    made: list[Event] = []
    slot, place = 0, {0: 0, 1: 0}
    for i in range(calls):
        if not pick.pick(f"call{i}", (True, False), (30, 1)):
            continue
        before = pick.weighed(f"call{i}.before", BETWEEN) if busy and i > 1 else "nothing"
        if before == "other":
            slot = 1 - slot
        rows = (
            prompt
            if place[slot] == 0 or before in ("reset", "new", "batch")
            else pick.pick(f"call{i}.rows", LENGTHS[how])
        )
        to = {"rewind": max(0, place[slot] - 2), "skip": place[slot] + 1}.get(before, 0)
        made.append(Event(slot, rows, before, before == "eager", to))
        start = to if before in ("rewind", "skip", "reset", "new", "batch") else place[slot]
        place[slot] = start + rows
        if place[slot] > capacity and not pick.chance(f"call{i}.over", 0.3):
            made.pop()
            place[slot] -= rows
            break
    return made
