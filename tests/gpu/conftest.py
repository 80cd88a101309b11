"""Compiling the base configuration takes a minute: the tests here share one compiled model."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing is reset between these tests."""
