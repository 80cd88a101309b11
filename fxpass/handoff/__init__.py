"""From a rewritten graph to a callable: propagate, cut, compile the parts, run them in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass.options import Options

from .addresses import belongs_to_module, written_inputs
from .compilers import as_dynamo_gave_it, compiler, get_ready, in_pieces
from .handover import Buffers, hand_over
from .kernels import use_kernels
from .packing import pack
from .propagate import propagate, snapshot
from .recording import carry_indices, is_recorded
from .regions import Region
from .repeats import cut
from .results import copies, in_inputs, in_recording, view
from .split import Part, is_dynamic, split

__all__ = [
    "Part",
    "assemble",
    "carry_indices",
    "get_ready",
    "is_recorded",
    "propagate",
    "snapshot",
    "split",
    "untouched",
    "use_kernels",
]


def untouched(
    gm: fx.GraphModule, example_inputs: Sequence[Any], normal: fx.GraphModule | None, settings: Options
) -> Callable[..., Any]:
    """``gm`` as Dynamo gave it, as `torch.compile` would compile it, or in pieces where its layers repeat.

    Where ``normal``, its normal form, shows growing sizes or writes to memory that may move (a prefill), a recording
    would be skipped or made anew for each call: CUDA graphs are then left off.
    """
    patches = dict(settings.inductor)
    if normal is not None and not _worth_recording(normal):
        patches["triton.cudagraphs"] = False
        if settings.compiler == "inductor" and not any(is_dynamic(n, set()) for n in normal.graph.nodes):
            calls = cut(normal)
            if calls:
                return in_pieces(normal, calls, patches)
    return as_dynamo_gave_it(settings.compiler, patches)(gm, example_inputs)


def _worth_recording(normal: fx.GraphModule) -> bool:
    inputs = [n for n in normal.graph.nodes if n.op == "placeholder"]
    growing = any(is_dynamic(n, set()) for n in inputs)
    return not growing and all(belongs_to_module(n) for n in written_inputs(normal))


_CHECKED = {"size_asserts": False, "alignment_asserts": False}
"""What Inductor's code need not check on every call: Dynamo's guards and `regions.Region` have."""


def assemble(
    gm: fx.GraphModule, parts: Sequence[Part], carried: Sequence[fx.Node], settings: Options
) -> Callable[..., tuple[Any, ...]]:
    """A function of ``gm``'s inputs that runs ``parts`` one after the other and returns ``gm``'s outputs as a tuple.

    ``carried`` are the inputs whose new contents are ``gm``'s last outputs (`recording.carry_indices`): they are
    written back, and not returned.
    """
    compile = compiler(settings.compiler, {**_CHECKED, **settings.inductor})
    inputs = gm.graph.find_nodes(op="placeholder")
    (results,) = gm.graph.output_node().args
    returned, new = results[: len(results) - len(carried)], results[len(results) - len(carried) :]  # type: ignore
    recorded = is_recorded(settings, [n.meta.get("val") for n in inputs])
    buffers = hand_over(gm, parts) if recorded else []
    groups = in_recording(gm, parts, returned) if recorded else []
    packs = pack(parts, groups)
    made = [*inputs, *buffers, *(n for part in parts for n in part.outputs), *(n for p in packs for n in p.nodes)]
    places = {node: i for i, node in enumerate(made)}
    steps = [([places[n] for n in part.inputs], Region(part, compile)) for part in parts]
    back = [(places[p], places[value]) for p, value in zip(carried, new)]
    packed = {n for p in packs for n in p.nodes}
    copied = [[places[n] for n in group] for group in groups if not packed.issuperset(group)]
    views = [(places[n], n) for n in in_inputs(gm, returned)] if recorded else []
    gives = [(places[r], None) if isinstance(r, fx.Node) else (None, r) for r in returned]
    memory = Buffers(buffers)

    def run(*args: Any) -> tuple[Any, ...]:
        values: list[Any] = [*args, *memory.tensors()]
        for takes, region in steps:
            values += region([values[i] for i in takes])
        for target, value in back:
            values[target].copy_(values[value])
        for p in packs:
            values += p.copies(values[places[p.packed]])
        for place, value in zip(itertools.chain(*copied), copies([[values[p] for p in group] for group in copied])):
            values[place] = value
        for place, node in views:
            values[place] = view(node, dict(zip(inputs, args)))
        return tuple(constant if place is None else values[place] for place, constant in gives)

    return run
