"""What is compiled while a block of code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from fxpass.execute.buffers import growth
from fxpass.execute.compilation.regions import Region


@contextmanager
def parts_compiled(least: int) -> Iterator[list[str]]:
    """Collects the names of the parts that are compiled, with ``least`` for the smallest capacity of what grows."""
    made: list[str] = []
    compile = Region._compile

    def see(region: Region, *args: Any) -> Any:
        made.append(region.part.name)
        return compile(region, *args)

    with mock.patch.object(Region, "_compile", see), mock.patch.object(growth, "LEAST", least):
        yield made
