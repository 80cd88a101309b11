"""A text that is made when it is asked for, since few readers ask for it and making it takes time."""

from __future__ import annotations

from collections.abc import Callable


class Late:
    """The text that ``make()`` gives: made once, by the first ``str``; pickled and copied as the text alone.

    What ``make`` holds is let go when the text is there.
    """

    def __init__(self, make: Callable[[], str] = str) -> None:
        self._make: Callable[[], str] | None = make
        self._text = ""

    def __str__(self) -> str:
        if self._make is not None:
            self._text, self._make = self._make(), None
        return self._text

    def __reduce__(self) -> tuple[type[Late], tuple[Callable[[], str]]]:
        return Late, (str(self).__str__,)
