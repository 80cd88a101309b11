"""The examples run with the self-check, and say what they should."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Forked

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A function that runs one of the examples in a process of its own, and returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KVFIX_VERIFY": "3"}
    parent = Forked("fxpass.backend", "torch._inductor.compile_fx", "toto_model", environment=environment)

    def run(name: str, *arguments: str) -> str:
        done = parent.run(str(EXAMPLES / name), *arguments, environment={})
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    parent.end()


def test_quickstart(run: Run):
    shown = run("quickstart.py")
    assert "max difference from eager: " in shown
    assert "graph 0: 0 rewritten, 0 refused" in shown and "graph 1: 21 rewritten, 0 refused" in shown
    assert "graph 2" not in shown


def test_toto_ts(run: Run):
    shown = run("toto_ts.py")
    assert "graphs: 2 (prefill and decode); breaks: 0" in shown
    assert "21 rewritten, 0 refused" in shown


def test_llama_int_position(run: Run):
    shown = run("llama_int_position.py")
    assert "32 tokens, as in eager: True; graphs: 2 (prefill and decode)" in shown
    assert "7 rewritten, 0 refused" in shown


def test_print_graphs(run: Run):
    shown = run("print_graphs.py")
    assert "-slice_" in shown and "+index_copy__default" in shown and "@@" in shown


def test_explain_html(run: Run, tmp_path: Path):
    shown = run("explain_html.py", str(tmp_path / "page.html"))
    assert "page.html: graph 0, 0 rewritten, graph 1, 21 rewritten" in shown
    assert "self._keys[cache_idx, :, :, start_idx:end_idx, :] = keys" in (tmp_path / "page.html").read_text()


@pytest.mark.packages
def test_dynamic_cache(run: Run):
    shown = run("dynamic_cache.py")
    assert "greedy: 68 tokens, as in eager: True\n  graphs so far: 2, breaks: 0" in shown
    assert "three beams: 68 tokens, as in eager: True\n  graphs so far: 4, breaks: 0" in shown
    assert shown.count("; core (") == 2 and "epilogue" not in shown and "keys.size()[2]: growth" in shown
