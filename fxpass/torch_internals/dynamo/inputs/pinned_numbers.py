"""Numbers and texts that move from call to call, but are constants in a graph. Each value makes a graph of its own.

    torch.kron(k[:, :p], x)         p is a symbol, until `kron` asks how long its operand is       p == 9
    p = len(self.tokens)            Dynamo has no symbol for the length of a list                  len(tokens) == 9
    if name.startswith("a"): ...    nor for a text                                                 name == 'a9'

The first kind is seen when the second such graph of one place is made. Numbers that kvfix itself has made constants, since they
have few values (`sizes.fixed`), do not count. Neither do strides and offsets, which stock Dynamo guards, too. The other kinds
are seen in the guards on which the latest graphs of the frame have failed, once there are `_IN_A_ROW` of them. Blocks that are
compiled one by one share a frame, and so do calls of a function that is told the number of a layer. So the graphs of each
module, and of each set of caches, or of each place in one that holds those of all layers, are counted by themselves.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import nn

from fxpass.graph.source_lines import is_own
from fxpass.torch_internals.dynamo.frames.compilation import compile_id, current_compilation
from fxpass.torch_internals.dynamo.frames.history import Owner, current_frame, history_of
from fxpass.torch_internals.dynamo.guards.frame_values import value_named
from fxpass.torch_internals.dynamo.names import TensorPropertySource
from fxpass.torch_internals.patches import patch

_IN_A_ROW = 4
_PLACE = re.compile(r"#\s*.*?([^\s/]+:\d+) in ")
_NUMBER = re.compile(r"\b\d+\b")
_SIZE = "size mismatch"


class Pinned(NamedTuple):
    """A ``guard`` that fails on each other value, and the ``place`` in the user's code that needs it, if that is known."""

    guard: str
    place: str


def install() -> None:
    """Let Dynamo tell, when it compiles a frame again, which guards of its graphs have failed."""
    patch("torch._dynamo.convert_frame.get_and_maybe_log_recompilation_reasons", _told)


def pinned() -> list[Pinned]:
    """The numbers that are constants in the frame that Dynamo is compiling, although they move with each call. This is called
    once for each graph, when it is known which inputs the graph writes to."""
    tx, compilation = current_frame(), current_compilation()
    if tx is None or compilation is None:
        return []
    seen, owner = history_of(tx.f_code), _owner(tx)
    seen.owners[compile_id()] = owner
    before, fixed = seen.pinned.get(owner, {}), _specialized(tx.output.shape_env)
    seen.pinned[owner] = now = {(name, place): before.get((name, place), set()) | {value} for name, place, value in fixed}
    latest = [text for made, text in compilation.failed if seen.owners.get(made) == owner]
    if not compilation.is_dynamic:  # `dynamic=False` asks for a graph for each size
        latest = [text for text in latest if _SIZE not in text]
    moved = [Pinned(f"{name} == {value}", place) for name, place, value in fixed if len(now[name, place]) > 1]
    return moved or _failing(latest)


def _owner(tx: Any) -> Owner:
    """What the latest graph of the frame of ``tx`` is for: modules, and the tensors that it writes to with the places in them,
    unless it is the only graph that writes to any. Tensors that a call before has written to, and that are gone since, do not
    count."""
    seen = history_of(tx.f_code)
    named = ((value_named(tx, name), places) for name, places in sorted(seen.writes_now.items()))
    written = [(t, places) for t, places in named if isinstance(t, torch.Tensor)]
    for t, places in written:
        seen.written_tensors.setdefault(t, set()).add(places)
    own = {(id(t), places) for t, places in written}
    others = {(id(t), places) for t, all_places in seen.written_tensors.items() for places in all_places} - own
    modules = [id(value) for value in tx.f_locals.values() if isinstance(value, nn.Module)]
    return (*modules, *(((id(t), places) for t, places in written) if others else ()))


def _specialized(env: Any) -> list[tuple[str, str, int]]:
    """The symbols of ``env`` that torch needs as constants: the source of each, the place that makes it so, and its value."""
    found = []
    for symbol, value in env.replacements.items():
        sources, why = env.var_to_sources.get(symbol), env.replacements_slocs.get(symbol)
        place = _PLACE.search(str(why))
        if sources and place and value.is_number and not _is_of_layout(sources[0]) and not _is_ours(why.framework_loc):
            found.append((sources[0].name, place[1], int(value)))
    return found


def _is_of_layout(source: Any) -> bool:
    """Whether ``source`` is a stride or the offset of a tensor."""
    return isinstance(source, TensorPropertySource) and source.prop.name != "SIZE"


def _is_ours(where: Any) -> bool:
    """Whether a hook of ours, at ``where``, has made a number a constant."""
    return is_own(getattr(where, "filename", ""), "torch_internals")


def _failing(texts: list[str]) -> list[Pinned]:
    """The guard on which the latest graphs have failed, each with a number of its own; ``texts`` begins with the latest."""
    kind = _without_value(texts[0]) if texts else ""
    alike = [text for text in texts if _without_value(text) == kind]
    if len(set(alike)) < _IN_A_ROW or texts[:_IN_A_ROW] != alike[:_IN_A_ROW]:
        return []
    place = _PLACE.search(texts[0])
    return [Pinned(texts[0].partition("#")[0].strip(), place[1] if place else "")]


def _without_value(text: str) -> str:
    """The guard ``text`` without the numbers in it, and without the value, such as a text, that something has to equal."""
    guard, _, line = text.partition("#")
    return _NUMBER.sub("#", f"{guard.partition(' == ')[0].strip()} {line}")


def _told(stock: Any, *args: Any, **kwargs: Any) -> list[str]:
    reasons = stock(*args, **kwargs)
    compilation = current_compilation()
    if compilation is not None and not compilation.failed:
        split = [reason.splitlines()[0].partition(": ") for reason in reasons]
        compilation.failed = sorted(((made, text) for made, _, text in split), key=lambda one: _order(one[0]), reverse=True)
    return reasons


def _order(made: str) -> list[int]:
    """The numbers by which ids of compilations, such as ``0/12``, are put in order."""
    return [int(number) for number in re.findall(r"\d+", made)]
