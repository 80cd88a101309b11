"""Values that are made when somebody asks for them. Few are asked for, and making them takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Lazy(Generic[Made]):
    """The value of ``make()``, which is made once, by the first call. It is pickled and copied as the value itself.

    ``make``, and what it holds, is let go of once the value is there.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make: Callable[[], Made] | None = make
        self._made: Made

    @classmethod
    def of(cls, made: Made) -> Lazy[Made]:
        """A value that is there already."""
        return cls(lambda: made)

    def __call__(self) -> Made:
        make = self._make
        if make is not None:
            self._made, self._make = make(), None
        return self._made

    def __reduce__(self) -> tuple[Callable[[Made], Lazy[Made]], tuple[Made]]:
        return Lazy.of, (self(),)
