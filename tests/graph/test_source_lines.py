"""Whose code a file is, and which of the frames that made a node is the user's."""

from __future__ import annotations

import os
import sysconfig

import pytest
import torch
from torch import fx

import fxpass
from fxpass.graph.source_lines import code_of, is_own, is_users, source_of, with_line

_TORCH = os.path.join(os.path.dirname(torch.__file__), "nn", "functional.py")
_PYTHON = os.path.join(sysconfig.get_path("stdlib"), "contextlib.py")


def test_whose_code_it_is() -> None:
    package = os.path.join(sysconfig.get_path("stdlib"), "site-packages", "library", "cache.py")
    assert is_users("/home/someone/model.py") and is_users(package)
    assert not is_users(_TORCH) and not is_users(_PYTHON) and not is_users("<frozen importlib._bootstrap>")


def test_our_own_code() -> None:
    own = os.path.dirname(fxpass.__file__)
    hook = os.path.join(own, "torch_internals", "dynamo", "hooks.py")
    assert is_own(hook) and is_own(hook, "torch_internals") and not is_own(hook, "graph")
    assert not is_own(own + "_of_another/model.py") and not is_own(__file__) and not is_own("")


def frame(file: str, line: int, code: str) -> str:
    return f'  File "{file}", line {line}, in forward\n    {code}\n'


@pytest.mark.parametrize(
    "frames, source, code",
    [
        ([("model.py", 3, "y = f(x)"), ("cache.py", 9, "return k[:, :p]")], "cache.py:9", "return k[:, :p]"),
        ([("model.py", 3, "F.pad(x, (0, 1))"), (_TORCH, 5000, "return torch._C._nn.pad(x)")], "model.py:3", "F.pad(x, (0, 1))"),
        ([(_TORCH, 5000, "return torch._C._nn.pad(x)")], f"{_TORCH}:5000", "return torch._C._nn.pad(x)"),
        ([], "", ""),
    ],
)
def test_the_innermost_frame_of_the_users(frames: list[tuple[str, int, str]], source: str, code: str) -> None:
    node = fx.Graph().placeholder("x")
    node.meta["stack_trace"] = "".join(frame(*one) for one in frames)
    assert (source_of(node), code_of(node)) == (source, code)


def test_a_number_without_a_line_is_found_by_what_uses_it() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    number = graph.call_function(torch.sym_int, (x,))
    user = graph.call_function(torch.neg, (graph.call_function(torch.abs, (number,)),))
    assert with_line(number) is number
    user.meta["stack_trace"] = frame("model.py", 3, "-abs(p)")
    assert with_line(number) is user
