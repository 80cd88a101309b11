"""Where a guarded position comes from: ``PositionSource(base, i)`` is element ``i`` of the index tensor ``base``.

To Dynamo it is one more `Source`: it can be evaluated (through the host mirror), guarded on, and rebuilt in bytecode to
feed the graph's SymInt input. Only the guard-manager lookup has to be taught, see `install`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch._dynamo.guards as dynamo_guards
from torch._dynamo.bytecode_transformation import create_call_function
from torch._dynamo.codegen import PyCodegen
from torch._dynamo.eval_frame import skip_code
from torch._guards import ChainedSource

from . import mirror


@dataclasses.dataclass(frozen=True)
class PositionSource(ChainedSource):
    """Element ``index`` (row-major) of the small integer tensor at ``base``, read through the host mirror."""

    index: int = 0

    @property
    def _name_template(self) -> str:
        return f"__load_module('{mirror.__name__}').read({{0}}, {self.index})"

    def reconstruct(self, codegen: PyCodegen) -> None:
        codegen.add_push_null(lambda: codegen.load_import_from(mirror.__name__, "read"))
        codegen(self.base)
        codegen.append_output(codegen.create_load_const(self.index))
        codegen.extend_output(create_call_function(2, False))


def install() -> None:
    """Teach Dynamo's guard builder to guard on a `PositionSource`."""
    builder = dynamo_guards.GuardBuilder
    stock = builder.get_guard_manager_from_source

    @functools.wraps(stock)
    def get_guard_manager_from_source(self: Any, source: Any) -> Any:
        if type(source) is not PositionSource or source.name in self._cached_guard_managers:
            return stock(self, source)
        value = self.get(source)
        manager = stock(self, source.base).lambda_manager(
            python_lambda=functools.partial(_read, index=source.index),
            source=source.name,
            example_value=value,
            guard_manager_enum=self.get_guard_manager_type(source, value),
        )
        self._cached_guard_managers[source.name] = manager
        return manager

    builder.get_guard_manager_from_source = get_guard_manager_from_source
    for function in (mirror.read, mirror.values, mirror._load, mirror._remember, mirror._Entry.holds, _read):
        skip_code(function.__code__)  # they run from guards, where Dynamo would trace them


def _read(tensor: Any, index: int) -> int:
    return mirror.read(tensor, index)
