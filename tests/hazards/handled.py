"""How a hazard's test shows that the handling matters: right as it is, and wrong with the handling taken out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from fxpass.errors import KvfixError, KvfixWarning

HANDLED = pytest.mark.parametrize("handled", [True, False], ids=["handled", "without"])


def check(handled: bool, run: Callable[[], Any]) -> None:
    """``run`` is right; or, with the handling taken out, gives wrong numbers, which the self-check finds in the first calls."""
    if handled:
        run()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KvfixWarning)
        with pytest.raises((AssertionError, KvfixError), match="not close|not equal|differs from the graph as it came"):
            run()
