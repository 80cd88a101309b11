"""The normal form of a graph: aten ops as autograd would see them, one node for each op, mutation left in place.

A graph may come from Dynamo (torch functions and methods), from ``torch.export`` or from ``make_fx``. The rules of this
package are written once, over aten overloads as the dispatcher first sees them:

    x.transpose(1, 2)[..., :n]      ->      transpose = aten.transpose.int(x, 1, 2)
                                            slice_1 = aten.slice.Tensor(transpose, 2, 0, n)

Composite ops (`scaled_dot_product_attention`, `linear`, `einsum`) stay whole, so that Inductor sees what it has lowerings for.
Grad-mode and autocast regions that change nothing are dropped; any other makes the graph unfit, with a reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.fx.traceback as fx_traceback
from torch import fx

from fxpass import reasons
from fxpass.errors import Reasoned
from fxpass.torch_internals.fakes import (
    DataDependentOutputException,
    DisableTorchDispatch,
    FakeTensor,
    FakeTensorMode,
    enable_python_dispatcher,
    enter_autocast,
    exit_autocast,
    get_data_attr,
    set_grad_enabled,
    tracing,
)
from fxpass.torch_internals.retrace import retrace
from fxpass.torch_internals.symbols import ShapeEnv, statically_known_true

from .aliases import remove_dead
from .inputs import note_given
from .numbers import number
from .replay import Replaying
from .source_lines import source_in
from .stepped_slices import take_steps_apart
from .unfit import Unfit, refuse_attributes, refuse_autograd, refuse_settings, refuse_transforms
from .values import fake_value, is_tensor

_GRAD_MODE = set_grad_enabled
_DATA = get_data_attr
_AUTOCAST = (enter_autocast, exit_autocast)
_CHECKPOINT = torch.ops.higher_order.tag_activation_checkpoint


def fake_inputs(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> list[Any]:
    """Fake tensors, SymInts and constants for the placeholders of ``gm``.

    The placeholders of graphs from Dynamo, export and make_fx carry theirs in ``meta``. Where one does not, fakes for all are
    made from ``example_inputs``, with static sizes.
    """
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    own = [*map(fake_value, placeholders)]
    fakes = [isinstance(v, (FakeTensor, torch.SymInt, torch.SymFloat, torch.SymBool)) for v in own]
    plain = [not isinstance(e, torch.Tensor) for e in example_inputs]
    if len(own) == len(example_inputs) and all(f or p for f, p in zip(fakes, plain, strict=True)):
        return [o if f else e for o, f, e in zip(own, fakes, example_inputs, strict=True)]
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return [mode.from_tensor(e, static_shapes=True) if isinstance(e, torch.Tensor) else e for e in example_inputs]


def mode_of(inputs: Sequence[Any]) -> FakeTensorMode:
    """The fake tensor mode of ``inputs``; a new one, in which their symbols are known, if none of them is a fake tensor."""
    for value in inputs:
        if isinstance(value, FakeTensor):
            return value.fake_mode
    symbolic = (v.node for v in inputs if isinstance(v, (torch.SymInt, torch.SymFloat, torch.SymBool)))
    known = next((n.shape_env for n in symbolic if n.is_symbolic()), None)
    return FakeTensorMode(shape_env=known or ShapeEnv(), allow_non_fake_inputs=True)


class NormalForm(NamedTuple):
    """A graph in normal form.

    gm: the module of the graph.
    folded: the ops that were given a constant in the place of a symbol. Their shapes may be known better than ``meta["val"]``
        says.
    """

    gm: fx.GraphModule
    folded: set[fx.Node]


def normal_form(gm: fx.GraphModule, inputs: Sequence[Any]) -> NormalForm:
    """``gm`` traced into aten on fake ``inputs``. Placeholders keep their order, names and ``meta``.

    Raises:
        Unfit: the graph would need autograd, an active autocast region, or a mode that inference does not have, it changes a
            setting of PyTorch's, or an operator takes for a number what a tensor holds (``mask.tril(idx[0])``).
    """
    refuse_autograd(gm, inputs)
    refuse_transforms(gm)
    refuse_settings(gm)
    mode = mode_of(inputs)
    interpreter = _Inference(gm)
    with tracing(None), fx_traceback.preserve_node_meta(), enable_python_dispatcher(), mode, torch.no_grad():
        traced = _traced(interpreter, inputs)
        take_steps_apart(traced.graph)
    _name_placeholders(traced, gm)
    _drop_grad_mode(traced)
    folded = _fold_known_numbers(traced)
    _inline_scalar_constants(traced)
    remove_dead(traced.graph)
    refuse_attributes(traced)
    traced.recompile()
    return NormalForm(traced, folded.intersection(traced.graph.nodes))


def _traced(interpreter: fx.Interpreter, inputs: Sequence[Any]) -> fx.GraphModule:
    try:
        return retrace(interpreter.run, inputs, pre_dispatch=True)
    except DataDependentOutputException as error:
        raise Unfit(reasons.DATA, where=source_in(fx_traceback.get_current_meta()) or error) from error


@contextlib.contextmanager
def faking(mode: FakeTensorMode) -> Iterator[None]:
    """Run operators on fake tensors of ``mode`` in the block, whatever fake mode Dynamo has active."""
    with tracing(None), enable_python_dispatcher(), mode, torch.no_grad():
        yield


class _Inference(Replaying):
    """Runs a graph without its grad-mode switches, and without autocast regions that are disabled.

    What `torch.utils.checkpoint` would compute again for autograd is a part of the graph like any other.
    """

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is _GRAD_MODE:
            return None
        if target is _DATA:  # tracing does not see what tensor it belongs to
            return args[0].detach()
        if target in _AUTOCAST:
            if target is _AUTOCAST[0] and args[2]:
                raise Unfit(reasons.AUTOCAST, where=f"in a region, with dtype {args[1]}")
            return None
        if target is _CHECKPOINT:
            return type(self)(args[0]).run(*args[1:])
        with _raising_unfit(target):
            return super().call_function(target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        with _raising_unfit(target):
            return super().call_method(target, args, kwargs)


@contextlib.contextmanager
def _raising_unfit(target: Any) -> Iterator[None]:
    """Within the block, raise `Unfit` in the place of an error that PyTorch's ``target`` raises on fake tensors."""
    try:
        yield
    except (Reasoned, DataDependentOutputException):
        raise
    except Exception as error:
        where, name = source_in(fx_traceback.get_current_meta()), getattr(target, "__name__", target)
        how = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise Unfit(reasons.UNTRACED, op=f"{name} ({where})" if where else name, error=how) from error


def _name_placeholders(traced: fx.GraphModule, gm: fx.GraphModule) -> None:
    old = [n for n in gm.graph.nodes if n.op == "placeholder"]
    new = [n for n in traced.graph.nodes if n.op == "placeholder"]
    for before, after in zip(old, new, strict=True):
        note_given(after, before)
        after.target = before.target
        after._rename(before.name)


def _drop_grad_mode(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        if node.target is _GRAD_MODE and not node.users:
            traced.graph.erase_node(node)


def _fold_known_numbers(traced: fx.GraphModule) -> set[fx.Node]:
    """Write every number that the guards fix (``s1 - 8 * s0``, asserted to be 8) as a constant; gives the users of these."""
    folded: set[fx.Node] = set()
    for node in traced.graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, (torch.SymInt, int)) or isinstance(value, bool):
            continue
        if folded.intersection((node, *node.all_input_nodes)) and not any(map(is_tensor, node.all_input_nodes)):
            folded.add(node)  # what it is made of is known better by now
            value = node.meta["val"] = node.target(*fx.map_arg(node.args, number))
        known = value if isinstance(value, int) else _known(value)
        if known is not None:
            folded.update(node.users)
            node.replace_all_uses_with(known)
    return folded


def _known(value: torch.SymInt) -> int | None:
    hint = value.node.hint
    return hint if hint is not None and statically_known_true(value == hint) else None


def _inline_scalar_constants(traced: fx.GraphModule) -> None:
    """Turn ``torch.tensor(0.1)``, which is traced as an attribute of the module, into a `full`, so that no part takes it as an
    input."""
    for node in list(traced.graph.nodes):
        constant = getattr(traced, str(node.target), None) if node.op == "get_attr" else None
        if not isinstance(constant, torch.Tensor) or isinstance(constant, FakeTensor) or constant.dim() != 0:
            continue
        with traced.graph.inserting_before(node), DisableTorchDispatch():
            value = {"dtype": constant.dtype, "device": constant.device}
            full = traced.graph.call_function(torch.ops.aten.full.default, ([], constant.item()), value)
        full.meta = dict(node.meta)
        for user in list(node.users):
            if user.target is torch.ops.aten.lift_fresh_copy.default:
                user.replace_all_uses_with(full)
        node.replace_all_uses_with(full)
