"""A program's calls, compiled beside eager: every result and all that the caches hold compared after each call."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import linecache
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch._dynamo.utils import counters

import fxpass
from fxpass import backend
from fxpass.execute.buffers import windows
from fxpass.rewriting.buffers import windows as rewriting_windows

from .driving import Event
from .program import Program
from .same import TOLERANCE, Failure, same

DIRT = {"zeros": 0.0, "nan": float("nan"), "inf": float("inf"), "large": 7e4}


@dataclasses.dataclass
class Outcome:
    """What came of one program. ``stock`` and ``graphs`` count what was `_made` for the calls on which eager does not raise,
    ``for_errors`` what was for the others; ``stock`` is -1 where it was not run."""

    seed: int
    failure: Failure | None = None
    graphs: int = 0
    for_errors: int = 0
    stock: int = -1
    stock_fails: str = ""
    eager_errors: int = 0
    calls: int = 0
    sites: int = 0
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    unfit: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclasses.dataclass
class Side:
    """The caches of one side, and what is called with them."""

    module: dict[str, Any]
    program: Program
    step: Callable[..., Any]
    caches: dict[int, Any] = dataclasses.field(default_factory=dict)

    def cache(self, slot: int) -> Any:
        if slot not in self.caches:
            self.fresh(slot, 2)
        return self.caches[slot]

    def fresh(self, slot: int, batch: int) -> None:
        torch.manual_seed(self.program.seed + slot)
        self.caches[slot] = self.module["Cache"](batch, self._new)

    def call(self, slot: int, x: torch.Tensor, given: tuple[Any, ...], eager: bool) -> Any:
        cache, takes = self.cache(slot), self.program.takes
        held = [cache] if takes is None else [getattr(cache, name) for name in takes]
        return (self.module["step"] if eager else self.step)(*held, x.clone(), *given)

    def _new(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        kind = self.program.dirt
        if kind == "random" or not (dtype.is_floating_point or dtype.is_complex):
            return (torch.randn(shape) * (1 if dtype != torch.int8 else 20)).to(dtype)
        return torch.full(shape, DIRT[kind]).to(dtype)


ROUNDED = {"emulate_precision_casts": True}
"""Inductor config patches with which it rounds to 16 bits where eager does: what is left of a difference is a fault."""


def run(program: Program, compiler: str = "eager", stock: str = "asked") -> Outcome:
    """``program`` compiled with kvfix beside eager. ``stock`` tells when stock torch.compile runs too: "asked" where kvfix made
    more than two graphs or something failed, "always", or "never"."""
    began = time.perf_counter()
    outcome = Outcome(program.seed)
    own = {"compiler": compiler} | ({"inductor": ROUNDED} if compiler == "inductor" else {})
    with _quiet():
        with _recorded(program.recorded and compiler == "eager"), _windowed(program.windows):
            outcome.graphs = _guarded(program, {"backend": "kvfix", "options": own}, outcome)
        for report in fxpass.reports():
            outcome.sites += len(report.sites)
            outcome.unfit += [report.unfit] if report.unfit else []
            for site in report.sites:
                if site.decision == "refused":
                    reason = site.reason.split(" (at ")[0]
                    outcome.refused[reason] = outcome.refused.get(reason, 0) + 1
        failed = [u for u in outcome.unfit if "the pass failed" in u]
        if failed and outcome.failure is None:
            outcome.failure = Failure("pass", -1, failed[0])
        if stock == "always" or stock == "asked" and (outcome.failure or outcome.graphs > 2):
            _beside_stock(program, compiler, outcome)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _beside_stock(program: Program, compiler: str, outcome: Outcome) -> None:
    beside = Outcome(program.seed)
    outcome.stock = _guarded(program, {"backend": compiler, "options": ROUNDED if compiler == "inductor" else None}, beside)
    if beside.failure is not None:
        outcome.stock_fails = f"{beside.failure.kind} at call {beside.failure.call}: {beside.failure.detail}"
    elif outcome.failure is None and outcome.graphs > outcome.stock:
        kind = "left" if counters["unimplemented"] else "graphs"
        outcome.failure = Failure(kind, -1, f"{outcome.graphs} graphs and breaks, {outcome.stock} with stock")


def _guarded(program: Program, how: dict[str, Any], outcome: Outcome) -> int:
    """The calls with ``how`` compiled; the number of graphs and breaks."""
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    try:
        _calls(program, how, outcome)
    except Failure as failure:
        outcome.failure = failure
    return _made() - outcome.for_errors


def _made() -> int:
    """The number of graphs, of breaks, and of places where Dynamo has left the rest of a frame to Python for good, which it
    does not count as breaks."""
    breaks = sum(sum(counters[name].values()) for name in ("graph_break", "unimplemented"))
    return counters["stats"]["unique_graphs"] + breaks


def _calls(program: Program, how: dict[str, Any], outcome: Outcome) -> None:
    module = load(program)
    sides = [Side(module, program, module["step"]), Side(module, program, torch.compile(module["step"], **how))]
    places: collections.Counter[int] = collections.Counter()
    batches: dict[int, int] = {}
    earlier: list[list[Any]] = []
    for i, event in enumerate(program.events):
        outcome.calls = i
        for side in sides:
            _before(side, event, batches)
        if event.before in ("rewind", "skip", "reset", "new", "batch"):
            places[event.slot] = event.to
        p, b = places[event.slot], batches.get(event.slot, 2)
        torch.manual_seed(program.seed + 100 + i)
        x, results, errors, made = module["rows"](event.rows, b), [], [], _made()
        for side in sides:
            try:
                results.append(side.call(event.slot, x, module["given"](p, event.rows), event.eager))
                errors.append(None)
            except Exception as error:
                results.append(None)
                errors.append(error)
        if errors[0] is not None:
            outcome.eager_errors += 1
            outcome.for_errors += _made() - made
            if errors[1] is None:
                raise Failure("silent", i, f"eager raised {type(errors[0]).__name__}: {_line(errors[0])}")
            _level(*sides)  # what has been written up to the error may differ
            continue
        if errors[1] is not None:
            raise Failure("raised", i, f"{type(errors[1]).__name__}: {_line(errors[1])}")
        same(results[0], results[1], "result", "output", i)
        for pair in earlier[-1:]:
            same(*pair, "earlier result", "output", i)
        earlier.append(results)
        for slot in sides[0].caches:
            same(held(sides[0].caches[slot]), held(sides[1].caches[slot]), f"cache {slot}", "state", i)
        places[event.slot] += event.rows


def load(program: Program) -> dict[str, Any]:
    """The module that the program's text makes; its lines can be shown."""
    name = f"<program {program.seed}>"
    linecache.cache[name] = (len(program.text), None, program.text.splitlines(True), name)
    module: dict[str, Any] = {"__name__": "program"}
    exec(compile(program.text, name, "exec"), module)
    return module


def held(cache: Any) -> dict[str, Any]:
    """All that ``cache`` holds, under the names of its attributes."""
    own = {k: v for k, v in vars(cache).items() if not k.startswith("_") and k != "training"}
    return {**own, **dict(cache.named_buffers())} if isinstance(cache, torch.nn.Module) else own


def _before(side: Side, event: Event, batches: dict[int, int]) -> None:
    slot, kind = event.slot, event.before
    if kind in ("new", "batch"):
        batches[slot] = 2 if kind == "new" else 3
        side.fresh(slot, batches[slot])
    cache = side.cache(slot)
    if kind in ("rewind", "skip", "reset"):
        side.module["seek"](cache, event.to)
    for name, value in held(cache).items():
        if not isinstance(value, torch.Tensor):
            continue
        is_index = value.dtype in (torch.int64, torch.int32)
        if kind == "replace" and not is_index or kind == "copy_index" and is_index:
            setattr(cache, name, value.clone())
        elif kind == "set_data":
            value.data = value.data.clone()
        elif kind == "zero" and not is_index:
            value.zero_()
        elif kind == "negate" and value.dtype in TOLERANCE and value.dtype.itemsize > 1:
            value.neg_()
        elif kind == "copy_over" and not is_index:
            for row, last in zip(value, reversed(value.clone().unbind()), strict=True):  # `flip` lacks dtypes
                row.copy_(last)


def _level(eager: Side, other: Side) -> None:
    """Put what the caches of ``eager`` hold into those of ``other``, in their own memory where it fits, shared alike."""
    for slot, cache in eager.caches.items():
        ours = other.cache(slot)
        stands_for: dict[int, int] = {}
        for name, value in held(cache).items():
            own = getattr(ours, name)
            if isinstance(value, torch.Tensor) and isinstance(own, torch.Tensor):
                if stands_for.setdefault(own.data_ptr(), value.data_ptr()) != value.data_ptr():
                    setattr(ours, name, own.clone())
            _put(ours, name, getattr(ours, name), value)


def _put(holder: Any, name: str, ours: Any, value: Any) -> None:
    if isinstance(value, list) and any(isinstance(v, torch.Tensor) for v in value):
        for a, b in zip(ours, value, strict=True):
            a.copy_(b)
    elif isinstance(value, torch.Tensor) and ours.shape == value.shape and ours.dtype == value.dtype:
        ours.copy_(value)
    else:
        setattr(holder, name, copy.deepcopy(value))


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "")[:300]


@contextlib.contextmanager
def _recorded(on: bool) -> Iterator[None]:
    """With all that stands around a recording, on the CPU."""
    before = backend.is_recorded
    if on:
        backend.is_recorded = lambda *_: True
    try:
        yield
    finally:
        backend.is_recorded = before


@contextlib.contextmanager
def _windowed(rows: int) -> Iterator[None]:
    """Where ``rows`` is not 0, with windows of small caches, too: of a multiple of so many rows."""
    with contextlib.ExitStack() as patches:
        if rows:
            patches.enter_context(mock.patch.object(windows, "STEP", rows))
            for module in (windows, rewriting_windows):
                patches.enter_context(mock.patch.object(module, "LEAST", 1))
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
