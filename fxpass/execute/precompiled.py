"""What torch's precompile cache keeps of a compiled graph (see `fxpass.torch_internals.precompile.hooks`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import fx

from fxpass.index_tensors.advance import Advance
from fxpass.options import Options
from fxpass.report import Report, store
from fxpass.torch_internals.precompile import hooks as precompile

from . import serialized
from .assemble import Plan


def serialize_for_cache(plan: Plan, settings: Options) -> Callable[[], Callable[..., Any]] | None:
    """``plan`` for torch's precompile cache; None, with a warning, where it cannot be kept."""
    try:
        return serialized.serialize(plan, settings).compile
    except Exception as error:
        precompile.warn_not_cached(error)
        return None


def put_in_cache(gm: fx.GraphModule, report: Report, settings: Options, saved: Any, advance: Advance) -> None:
    """Put ``gm``'s compiled function into torch's precompile cache, as AOTAutograd has kept it, or as it was ``saved``."""
    try:
        make = precompile.made_by_torch(gm) or saved
        if make is not None:
            precompile.put_artifact(gm, settings, CachedGraph(report, settings, make, advance))
    except Exception as error:  # whatever is in the options
        precompile.warn_not_cached(error)


@dataclasses.dataclass(frozen=True)
class CachedGraph:
    """A compiled graph in torch's precompile cache: called in another process, it makes the function and reports again."""

    report: Report
    settings: Options
    make: Callable[[], Callable[..., Any]]
    advance: Advance

    def __call__(self) -> Callable[..., Any]:
        compiled = self.advance.after(self.make())
        report = dataclasses.replace(self.report, name=store.new_report().name)
        store.add(report)
        store.complain(report, self.settings)
        return compiled
