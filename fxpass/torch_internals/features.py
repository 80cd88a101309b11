"""Which features this torch can carry.

One warning tells of a feature that it cannot carry, with the reason. Without `Feature.NEEDED` kvfix declines, and the model
runs on stock Inductor.
"""

from __future__ import annotations

import functools

import torch

from fxpass import reasons
from fxpass.errors import warn

from .contracts import RELEASES, TABLE, Feature


@functools.cache
def lost(feature: Feature) -> str | None:
    """Why this torch cannot carry ``feature``; None where it can. The torch at hand is looked at once."""
    if feature not in (Feature.NEEDED, Feature.FALLBACK):
        if (reason := lost(Feature.NEEDED)) is not None:
            return reason
        if feature is not Feature.INDUCTOR and ".".join(torch.__version__.split(".")[:2]) not in RELEASES:
            return f"torch {torch.__version__.split('+')[0]} is none of {', '.join(RELEASES)}"
    if feature in _given_up:
        return _given_up[feature]
    broken = (contract.broken() for contract in TABLE.values() if contract.feature is feature)
    return next((reason for reason in broken if reason is not None), None)


def holds(feature: Feature) -> bool:
    """Whether this torch can carry ``feature``. If it cannot, a warning says why, the first time."""
    reason = lost(feature)
    if reason is not None and feature not in _warned:
        _warned.add(feature)
        warn(reasons.LOST, without=feature.value, error=reason)
    return reason is None


def give_up(feature: Feature, reason: str) -> None:
    """Do without ``feature`` from here on, for a ``reason`` that came up when it was used."""
    lost.cache_clear()
    _given_up.setdefault(feature, reason)


_given_up: dict[Feature, str] = {}
"""The features that were given up, with the reasons."""
_warned: set[Feature] = set()
"""The features of whose loss a warning has told."""
