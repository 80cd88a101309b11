"""Functions that a user excludes from what is compiled, and that take what moves out of a cache.

    @torch.compiler.disable
    def attend(q, cache, p): return sdpa(q, cache[:, :p], cache[:, :p])

    attend(q, cache, p)        the graph breaks here, and p is a symbol: a number that moves
    attend(q, joined)          the same, where a graph has made ``joined`` longer before the break

Nothing of this is in any graph, so it is looked for where Dynamo ends one: at the call that breaks it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

from torch import nn

from fxpass.graph.numbers import symbols
from fxpass.torch_internals.dynamo.frames.compilation import Excluded, current_compilation
from fxpass.torch_internals.dynamo.frames.history import history_of
from fxpass.torch_internals.dynamo.names import SymNodeVariable, TensorVariable
from fxpass.torch_internals.patches import patch

from .causes import broken_by
from .code_of_tensors import takes_slices, works_on_tensors
from .code_run_elsewhere import python_value, sliced_elsewhere


def install(is_ours: Callable[[Any], bool]) -> None:
    """Install the hook; ``is_ours(compiler_fn)`` says whether a frame is compiled for kvfix."""
    patch("torch._dynamo.output_graph.OutputGraph.compile_subgraph", functools.partial(_compile_subgraph, is_ours))


def _compile_subgraph(
    is_ours: Callable[..., bool], stock: Any, self: Any, tx: Any, reason: Any, stack_pops: int = 0
) -> Any:
    """Look at the call that breaks the graph. What grows is known once the graph before it is compiled."""
    compilation = current_compilation()
    if compilation is None or not reason.graph_break or not is_ours(self.compiler_fn):
        return stock(self, tx, reason, stack_pops)
    popped = tx.stack[len(tx.stack) - stack_pops :]
    elsewhere = sliced_elsewhere(tx, popped)
    made = stock(self, tx, reason, stack_pops)
    _, where = broken_by(reason)
    seen = history_of(self.root_tx.f_code)
    if where not in seen.excluded and (found := elsewhere or _excluded(popped, seen.loses_joined)):
        seen.excluded.add(where)
        compilation.excluded.append(Excluded(*found, where))
    return made


def _excluded(popped: Sequence[Any], grows: bool) -> tuple[str, str] | None:
    """The function that is called with what was ``popped``, if it is excluded and works on a cache, and what it does there."""
    called = [known for one in popped if (known := _known(one)) is not None]
    code = next(filter(None, map(_excluded_code, called)), None)
    does = _work(code, called, grows) if code else ""
    return (code.co_name, does) if code and does else None


def _known(variable: Any) -> Any:
    """What Dynamo knows of ``variable``; None of what it has not looked at so far, since to look makes guards."""
    if not hasattr(variable, "is_realized"):
        return variable
    return variable.realize() if variable.is_realized() else None


def _excluded_code(variable: Any) -> CodeType | None:
    """The code of a function, or of a module's ``forward``, that is excluded; None of anything else."""
    function = python_value(variable)
    function = function.forward if isinstance(function, nn.Module) else function
    if not getattr(function, "_torchdynamo_disable", False):
        return None
    function = getattr(function, "_torchdynamo_orig_callable", function)
    owner = getattr(function, "__self__", None)
    function = type(owner).forward if isinstance(owner, nn.Module) else function  # a module as a whole
    return getattr(function, "__code__", None)


def _work(code: CodeType, given: Sequence[Any], grows: bool) -> str:
    """What ``code`` does with a cache that it is ``given``; empty where that is nothing. ``grows`` says whether there is one
    that a graph has made longer."""
    tensors = [one for one in given if isinstance(one, TensorVariable)]
    if tensors and takes_slices(code) and any(isinstance(one, SymNodeVariable) for one in given):
        return "slices what it is given by a number that moves"
    if grows and works_on_tensors(code) and any(map(_is_symbolic, tensors)):
        return "works on a cache that grows"
    return ""


def _is_symbolic(tensor: Any) -> bool:
    return bool(symbols(tensor.as_proxy().node.meta["example_value"]))
