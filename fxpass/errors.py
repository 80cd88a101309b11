"""What kvfix raises and warns with."""

from __future__ import annotations


class Refusal(Exception):
    """A site cannot be rewritten soundly; the message is the reason that the report shows."""


class NoRule(Refusal):
    """There is no rule for an operator."""


class KvfixError(RuntimeError):
    """``strict`` is set and something was refused, or a post-condition of a rewritten graph does not hold."""


class KvfixWarning(UserWarning):
    """Something runs, correctly, but not the way kvfix was asked to run it; the message says why."""


class NotGrowing(Exception):
    """What has buffers has no use for them; the message says why. Nothing has been computed."""
