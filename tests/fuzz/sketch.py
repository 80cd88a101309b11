"""A program while it is being made, and the tensors that its expressions stand for."""

from __future__ import annotations

import dataclasses

from .choices import Choices

LAYOUTS = {
    "BTD": 3, "BHTD": 6, "TD": 2, "BTHD": 3, "BDT": 2, "TBD": 2, "BT": 1.5, "T": 1, "HTBD": 1, "BHDT": 1, "DT": 0.5,
}  # fmt: skip
"""Orders of batch, heads, time and channels, with their weights."""


@dataclasses.dataclass(frozen=True)
class Val:
    """A float tensor: its expression, the letters of its dims, and the number of rows along T, as an expression."""

    code: str
    layout: str
    rows: str = ""

    @property
    def t(self) -> int:
        return self.layout.index("T")

    def but(self, code: str, layout: str | None = None) -> Val:
        """The same with another expression, and another order of dims."""
        return Val(code, self.layout if layout is None else layout, self.rows)


@dataclasses.dataclass
class Sketch:
    """The parts of a program: lines of each function, the arguments of the step beyond the rows, what it returns."""

    choices: Choices
    layout: str
    sizes: dict[str, int]
    capacity: int
    state: list[str] = dataclasses.field(default_factory=list)
    seek: list[str] = dataclasses.field(default_factory=list)
    given: dict[str, str] = dataclasses.field(default_factory=dict)
    body: list[str] = dataclasses.field(default_factory=list)
    after: list[str] = dataclasses.field(default_factory=list)
    outs: list[str] = dataclasses.field(default_factory=list)
    assigns: bool = False
    """Whether the step sets attributes of the cache, which needs an object to hold them."""
    accumulates: bool = False
    """Whether rows are added to what a buffer holds before the first write."""
    made: int = 0

    def let(self, code: str, stem: str = "t") -> str:
        """A new variable that holds ``code``."""
        self.made += 1
        name = f"{stem}{self.made}"
        self.body.append(f"{name} = {code}")
        return name

    def keep(self, line: str) -> None:
        """A line of the cache's ``__init__``, once."""
        if line not in self.state:
            self.state.append(line)

    def shape(self, layout: str, rows: str) -> str:
        """The sizes of ``layout`` as arguments; the batch is the cache's."""
        return ", ".join(rows if d == "T" else "b" if d == "B" else str(self.sizes[d]) for d in layout)


def cut(layout: str, bounds: str, ellipsis: bool = False) -> str:
    """A subscript that takes ``bounds`` along T and all of the rest."""
    t = layout.index("T")
    if ellipsis:
        return ", ".join(["...", bounds, *[":"] * (len(layout) - 1 - t)])
    return ", ".join([":"] * t + [bounds])
