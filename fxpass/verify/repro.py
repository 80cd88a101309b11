"""``fxpass.repro(report)``: one file that runs alone, with the graph before the pass, random inputs and the comparison.

    args = [
        torch.empty_strided((2, 8, 4), (32, 4, 1), dtype=torch.float32, device="cpu").normal_(),
        torch.tensor([3], dtype=torch.int64, device="cpu"),                                # an index keeps what it held
    ]
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import hint
from fxpass.options import Options
from fxpass.report import Report
from fxpass.report.lazy import Lazy

from .script import around, held_by, taken_inputs, with_graph
from .skeleton import Skeleton
from .template import MADE

MAX_INDEX = 64
"""An integer tensor of up to this many elements is taken for an index, and keeps what it holds."""


def repro(report: Report, path: str | None = None) -> str:
    """Write a script that compares the graph of ``report`` with kvfix and without; returns its path.

    Args:
        report: one of `fxpass.reports`.
        path: where it is written; a new file in the folder for temporary ones, if not given.

    The script's exit status is 1 while the two differ. Inputs are random, of the shapes, strides and dtypes that the graph
    was compiled for.

    Raises:
        RuntimeError: the graph cannot be written as a script; the message says why.
    """
    script = report.script()
    if not script or script.startswith("#"):
        raise RuntimeError(f"kvfix: {report.name} has no script: {script.lstrip('# ') or 'no backend compiled it'}")
    if path is None:
        path = str(pathlib.Path(tempfile.mkdtemp(prefix="kvfix_")) / "repro.py")
    pathlib.Path(path).write_text(script)
    return path


def script_of(gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Options, report: Report) -> Lazy[str]:
    """What `repro` writes for the Dynamo graph ``gm``, or a comment that says why there is none.

    The graph becomes code when it is asked for. Until then a `Skeleton` of it is kept: none of the tensors that a caller has.
    """
    try:
        args = ",\n".join(f"        {_made(example_inputs[i])}" for i in taken_inputs(gm))
        held = ", ".join(f"{name!r}: {_made(value)}" for name, value in held_by(gm).items())
        exact, title = (False, [False] * len(example_inputs)), f"kvfix: {report.name}, with kvfix and without"
        rest, skeleton = around(gm, exact, settings, title, MADE.format(args=args, held=held)), Skeleton.of(gm)
    except Exception as error:  # whatever a model takes: it is compiled all the same
        return Lazy(_no_script(error).__str__)
    return Lazy(lambda: _script(rest, skeleton))


def _script(rest: Mapping[str, Any], skeleton: Skeleton) -> str:
    try:
        return with_graph(rest, skeleton.module())
    except Exception as error:
        return _no_script(error)


def _no_script(error: Exception) -> str:
    return f"# {type(error).__name__}: {error}"


def _made(value: Any) -> str:
    """Code that makes a value like ``value``: of its shape, strides and dtype, or, of an index, itself."""
    if not isinstance(value, torch.Tensor):
        return repr(hint(value))
    device = f"device={value.device.type!r}"
    if value.is_floating_point() or value.is_complex():
        sizes = f"{tuple(map(int, value.shape))}, {tuple(map(int, value.stride()))}"
        return f"torch.empty_strided({sizes}, dtype={value.dtype}, {device}).normal_()"
    if value.numel() <= MAX_INDEX:
        return f"torch.tensor({value.tolist()}, dtype={value.dtype}, {device})"
    return f"torch.ones({tuple(map(int, value.shape))}, dtype={value.dtype}, {device})"
