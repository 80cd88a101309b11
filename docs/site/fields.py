"""For mkdocstrings: a paragraph of ``name: text`` in the docstring of a class is the list of its fields."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

FIELD = re.compile(r"\w+(, \w+)?: ")
TWO = re.compile(r"^(\w+), (\w+): ", re.M)


class Fields(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring is None:
            return
        parts = cls.docstring.value.split("\n\n")
        cls.docstring.value = "\n\n".join(listed(part) if FIELD.match(part) else part for part in parts)


def listed(part: str) -> str:
    """The section of fields that mkdocstrings reads; of two that are explained together, the first points to the second."""
    return "Attributes:\n" + textwrap.indent(TWO.sub(r"\1: see `\2`.\n\2: ", part), "    ")
