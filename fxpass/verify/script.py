"""A script that shows a difference alone: the graph as code, its inputs in a file beside it, run with kvfix and without.

Numbers that the graph takes are computed where Dynamo has taken them from, so that Dynamo guards on them again in the script:

    def run(index, cache, x):
        s0 = index.reshape(-1)[0].item()        # a position
        s1 = cache.size(0)                      # a size
        return graph(index, s0, s1, cache, x)
"""

from __future__ import annotations

import inspect
import pathlib
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.inputs import belongs_to_module, dynamo_source
from fxpass.graph.values import fake_value
from fxpass.options import Options
from fxpass.torch_internals.dynamo.guards.sources import AggregateSource, PositionSource

from .outcome import COUNTED, RELATIVE, numbers, tolerance
from .template import LOADED, SCRIPT


def write_script(
    gm: fx.GraphModule, args: Sequence[Any], exact: tuple[bool, Sequence[bool]], settings: Options, title: str
) -> str:
    """Write the script for ``gm``, a graph from Dynamo, and its ``args``; returns where it is.

    ``exact`` says what must agree bitwise: the results, and each of ``args``.
    """
    code, taken = script_text(gm, exact, settings, title, LOADED)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kvfix_"))
    torch.save(([args[i] for i in taken], held_by(gm)), folder / "inputs.pt")
    (folder / "script.py").write_text(code)
    return str(folder / "script.py")


def script_text(
    gm: fx.GraphModule, exact: tuple[bool, Sequence[bool]], settings: Options, title: str, inputs: str
) -> tuple[str, list[int]]:
    """The script for ``gm``, with the code ``inputs`` that makes its inputs; and which of the graph's inputs these are."""
    return with_graph(around(gm, exact, settings, title, inputs), gm), taken_inputs(gm)


def around(
    gm: fx.GraphModule, exact: tuple[bool, Sequence[bool]], settings: Options, title: str, inputs: str
) -> dict[str, Any]:
    """What is in the script of ``gm`` around the code of the graph."""
    nodes = gm.graph.find_nodes(op="placeholder")
    made, taken = _numbers(nodes), taken_inputs(gm)
    moving, dynamic = _moving(nodes, taken)
    lines = [f"    a{i} = {code}" for i, code in made.items()]
    call = f"    return graph({', '.join(f'a{i}' for i in range(len(nodes)))})"
    return {
        "title": title,
        "options": {"compiler": settings.compiler, "inductor": dict(settings.inductor), "verify": 0},
        "exact": (exact[0], [exact[1][i] for i in taken]),
        "moving": moving,
        "dynamic": dynamic,
        "static": [t for t, i in enumerate(taken) if belongs_to_module(nodes[i])],
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "run": "\n".join([f"def run({', '.join(f'a{i}' for i in taken)}):", *lines, call]),
        "inputs": inputs,
    }


def with_graph(rest: Mapping[str, Any], gm: fx.GraphModule) -> str:
    """The script with the code of ``gm``, and the ``rest`` `around` it."""
    code = SCRIPT.format(
        **rest,
        imports="\n".join(_imports(gm)),
        relative=RELATIVE,
        counted=COUNTED,
        tolerance=inspect.getsource(tolerance) + "\n\n" + inspect.getsource(numbers),
        graph=gm.print_readable(print_output=False).strip(),
        name=type(gm).__name__,
    )
    compile(code, "script", "exec")
    return code


def taken_inputs(gm: fx.GraphModule) -> list[int]:
    """Which of ``gm``'s inputs the script's own function takes: the others are computed from them."""
    nodes = gm.graph.find_nodes(op="placeholder")
    made = _numbers(nodes)
    return [i for i in range(len(nodes)) if i not in made]


def held_by(gm: fx.GraphModule) -> dict[str, Any]:
    """The tensors that ``gm`` has as attributes."""
    held = {str(n.target): _attribute(gm, n.target) for n in gm.graph.find_nodes(op="get_attr")}
    return {name: value for name, value in held.items() if not isinstance(value, torch.nn.Module)}


def _numbers(nodes: Sequence[fx.Node]) -> dict[int, str]:
    """For each number among the inputs ``nodes`` that comes from a tensor among them, how it is computed."""
    sources = [dynamo_source(node) for node in nodes]
    places = {source.name: i for i, source in enumerate(sources) if source is not None}
    made = {}
    for i, source in enumerate(sources):
        base = places.get(getattr(getattr(source, "base", None), "name", None))
        if base is None or isinstance(fake_value(nodes[i]), torch.Tensor):
            continue
        if isinstance(source, PositionSource):
            made[i] = f"a{base}.reshape(-1)[{source.index}].item()"
        elif isinstance(source, AggregateSource) and source.extreme is not None:
            fn, some = source.extreme
            made[i] = f"a{base}.reshape(-1)[{some.start}:{some.stop}:{some.step}].{fn.__name__}().item()"
        elif hasattr(source, "prop"):
            made[i] = f"a{base}.{source.prop.method_name()}({'' if source.idx is None else source.idx})"
    return made


def _moving(
    nodes: Sequence[fx.Node], taken: Sequence[int]
) -> tuple[list[tuple[int, int | None]], list[tuple[int, int]]]:
    """Of the inputs that are ``taken``: numbers that have been seen to move (an int, or an element), and dynamic sizes."""
    names = {source.name: t for t, i in enumerate(taken) if (source := dynamo_source(nodes[i])) is not None}
    moving: list[tuple[int, int | None]] = []
    for node in nodes:
        source = dynamo_source(node)
        if (elements := _elements(source)) and source.base.name in names:
            moving += [(names[source.base.name], i) for i in elements]
    moving += [(t, None) for t, i in enumerate(taken) if isinstance(fake_value(nodes[i]), torch.SymInt)]
    tensors = [(t, fake_value(nodes[i])) for t, i in enumerate(taken) if isinstance(fake_value(nodes[i]), torch.Tensor)]
    return moving, [(t, d) for t, value in tensors for d, s in enumerate(value.shape) if isinstance(s, torch.SymInt)]


def _elements(source: Any) -> Sequence[int]:
    """The elements of an index tensor that the number at ``source`` is made of; none where it has another origin."""
    if isinstance(source, AggregateSource) and source.extreme is not None:
        return source.extreme.places
    return (source.index,) if isinstance(source, PositionSource) else ()


def _attribute(gm: fx.GraphModule, target: Any) -> Any:
    value: Any = gm
    for name in str(target).split("."):
        value = getattr(value, name)
    return value


def _imports(gm: fx.GraphModule) -> Iterator[str]:
    """What the code of ``gm`` refers to."""
    for name, value in gm.graph.python_code("self").globals.items():
        if isinstance(value, types.ModuleType):
            yield f"import {value.__name__} as {name}"
        elif isinstance(value, float):
            yield f'{name} = float("{value}")'
        elif value is type(None):
            yield f"{name} = type(None)"
        elif "." not in getattr(value, "__qualname__", "."):
            yield f"from {value.__module__} import {value.__qualname__} as {name}"
