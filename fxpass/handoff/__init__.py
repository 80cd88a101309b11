"""From a rewritten graph to a callable: propagate, cut, compile the parts, run them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass.options import Options

from .compilers import compiler
from .propagate import propagate
from .regions import Region
from .split import Part, split

__all__ = ["Part", "Region", "assemble", "compiler", "propagate", "split", "stock"]


def stock(gm: fx.GraphModule, example_inputs: Sequence[Any], settings: Options) -> Callable[..., Any]:
    """``gm`` as Dynamo gave it, through the chosen compiler: what happens to a graph that is not rewritten."""
    return compiler(settings.compiler, settings.inductor)(gm, example_inputs)


def assemble(gm: fx.GraphModule, parts: Sequence[Part], settings: Options) -> Callable[..., tuple[Any, ...]]:
    """A function of ``gm``'s inputs that runs ``parts`` one after the other and returns ``gm``'s outputs as a tuple."""
    compile = compiler(settings.compiler, settings.inductor)
    places: dict[fx.Node, int] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            places[node] = len(places)
    steps = []
    for part in parts:
        takes = [places[n] for n in part.inputs]
        for node in part.outputs:
            places[node] = len(places)
        steps.append((takes, Region(part, compile)))
    (results,) = next(n for n in gm.graph.nodes if n.op == "output").args
    gives = [(places[r], None) if isinstance(r, fx.Node) else (None, r) for r in results]

    def run(*args: Any) -> tuple[Any, ...]:
        values = list(args)
        for takes, region in steps:
            values += region([values[i] for i in takes])
        return tuple(constant if place is None else values[place] for place, constant in gives)

    return run
