"""For mkdocstrings: a paragraph of ``name: text`` in the docstring of a class is the list of its fields."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

FIELD = re.compile(r"\w+(, \w+)*: ")


class Fields(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring is None:
            return
        parts = cls.docstring.value.split("\n\n")
        listed = ["Attributes:\n" + textwrap.indent(part, "    ") if FIELD.match(part) else part for part in parts]
        cls.docstring.value = "\n\n".join(listed)
