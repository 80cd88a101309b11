"""What kvfix raises and warns with."""

from __future__ import annotations

import warnings

from fxpass.reasons import Reason


class Reasoned(Exception):
    """Raised within kvfix for one of the `fxpass.reasons`; the message is its text."""

    def __init__(self, reason: Reason, **fields: object) -> None:
        super().__init__(reason.text(**fields))


class Refusal(Reasoned):
    """A site cannot be rewritten soundly; the message is what the report shows."""


class NoRule(Refusal):
    """There is no rule for an operator."""


class NotGrowing(Reasoned):
    """An input that has a buffer no longer grows. It is a cache that the graph joins rows to or, with ``is_series``, a tensor
    that only the caller makes longer. Nothing has been computed yet.
    """

    def __init__(self, reason: Reason, is_series: bool, **fields: object) -> None:
        super().__init__(reason, **fields)
        self.is_series = is_series


class KvfixError(RuntimeError):
    """``strict`` is set and something was refused; or ``verify`` is set and a call gave another result than the graph as it
    came."""


class KvfixWarning(UserWarning):
    """Something runs, correctly, but not the way kvfix was asked to run it; the message says why."""


def warn(reason: Reason, stacklevel: int = 2, **fields: object) -> None:
    """Warn with the text of ``reason``, from where the caller's ``stacklevel`` points."""
    warnings.warn(f"kvfix: {reason.text(**fields)}", KvfixWarning, stacklevel=stacklevel + 1)
