"""What goes into torch's precompile cache for a compiled graph (see `fxpass.torch_internals.precompile.hooks`)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import fx

from fxpass.execute.calls.assemble import Plan
from fxpass.index_tensors.advance import Advance
from fxpass.options import Options
from fxpass.report import Report, store
from fxpass.torch_internals.precompile import hooks as precompile

from .serialized import SerializedGraph, serialize


def put_in_cache(
    gm: fx.GraphModule, asked: Options, plan: Plan | None, settings: Options, report: Report, advance: Advance
) -> None:
    """Put the compiled function of the Dynamo graph ``gm`` into torch's precompile cache, under the ``asked`` options.

    Where AOTAutograd has compiled the whole graph, its own entry makes the function again; otherwise ``plan`` does, as plain
    data. A graph that cannot be cached costs a warning.
    """
    try:
        make: Callable[[], Callable[..., Any]] | SerializedGraph | None = precompile.made_by_torch(gm)
        if make is None and plan is not None:
            make = serialize(plan, settings)
        if make is not None:
            precompile.put_artifact(gm, asked, CachedGraph(report, settings, make, advance))
    except Exception as error:  # whatever is in the options
        precompile.warn_not_cached(error)


@dataclasses.dataclass(frozen=True)
class CachedGraph:
    """A compiled graph in torch's precompile cache. Called in another process, it makes the function, and the report, again."""

    report: Report
    settings: Options
    make: Callable[[], Callable[..., Any]] | SerializedGraph
    advance: Advance

    def __call__(self) -> Callable[..., Any]:
        report = dataclasses.replace(self.report, name=store.new_report().name)
        failed = functools.partial(store.failed, report, self.settings)
        compiled = self.make.compile(failed) if isinstance(self.make, SerializedGraph) else self.make()
        store.add(report)
        store.complain(report, self.settings)
        return self.advance.after(compiled)
