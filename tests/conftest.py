"""Every test starts with nothing compiled and nothing remembered; a `KvfixWarning` that it does not expect fails it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

import fxpass


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error::fxpass.KvfixWarning")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
