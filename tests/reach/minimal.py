"""The minimal models as cases for ``kvfix reach tests.reach.minimal``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator

import torch

from .cases import Case, Compile, Step
from .models import CONTROLS, MODELS, Model


def steps(kind: type[Model], compiled: Compile, device: str) -> Iterator[Step]:
    """Prefill and decoding with NaN in the unwritten tail."""
    torch.manual_seed(0)
    with torch.device(device):
        model = kind()
    for name in kind.caches if kind not in CONTROLS.values() else ():
        model.get_buffer(name).fill_(float("nan"))
    forward = compiled(model)
    for arguments in model.inputs():
        state = torch.get_rng_state()
        there = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
        out = forward(*there).clone()
        torch.set_rng_state(state)
        yield out, [b.clone() for b in model.buffers()]


def _case(name: str, kind: type[Model]) -> Case:
    pattern = (inspect.cleandoc(kind.__doc__ or "").splitlines() or [""])[0]
    ours = kind not in CONTROLS.values()
    return Case(name, "", pattern, functools.partial(steps, kind), ours=ours, graphs=kind.graphs)


CASES = [_case(name, kind) for name, kind in {**MODELS, **CONTROLS}.items()]
