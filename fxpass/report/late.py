"""What is made when it is asked for, since few readers ask for it and making it takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Late(Generic[Made]):
    """What ``make()`` gives: made once, by the first call; pickled and copied as what was made.

    What ``make`` holds is let go when it is there.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make: Callable[[], Made] | None = make
        self._made: Made

    @classmethod
    def of(cls, made: Made) -> Late[Made]:
        """What is there already."""
        return cls(lambda: made)

    def __call__(self) -> Made:
        make = self._make
        if make is not None:
            self._made, self._make = make(), None
        return self._made

    def __reduce__(self) -> tuple[Callable[[Made], Late[Made]], tuple[Made]]:
        return Late.of, (self(),)
