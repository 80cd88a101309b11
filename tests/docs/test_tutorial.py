"""All code of docs/tutorial.md runs, and prints what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"


@pytest.mark.filterwarnings("default::fxpass.KvfixWarning")  # the page catches the one that it expects
def test_the_tutorial(monkeypatch):
    monkeypatch.setenv("KVFIX_VERIFY", "0")  # the page itself says what is compared
    page = Sybil([PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)]).parse(PAGE)
    examples = list(page.examples())
    assert len(examples) >= 10
    for example in examples:
        example.evaluate()
