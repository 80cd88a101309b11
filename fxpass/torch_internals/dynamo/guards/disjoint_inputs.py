"""A guard that what a graph writes lies apart from the index tensors that it knows (see `index_tensors.address_ranges`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import fx

from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import Source, install_guard
from fxpass.torch_internals.fakes import TracingContext

from . import functions


def guard_disjoint(gm: fx.GraphModule) -> None:
    """Let the Dynamo graph ``gm``, now being compiled, be used only where `disjoint` holds for its index tensors."""
    if current_compilation() is None or TracingContext.try_get() is None:
        return
    inputs = Table.of(gm.graph).address_ranges()
    if len(inputs) > 1 and any(written for _, written, _ in inputs):
        sources = tuple((where.source, *flags) for where, *flags in inputs)
        install_guard(sources[0][0].make_guard(functools.partial(_guard, sources=sources)))


def _guard(builder: Any, guard: Any, sources: Sequence[tuple[Source, bool, bool]]) -> None:
    tensors = ", ".join(f"({source.name}, {written}, {known})" for source, written, known in sources)
    code = f"__load_module('{functions.__name__}').disjoint([{tensors}])"
    builder.add_python_lambda_leaf_guard_to_root([code], [code])
