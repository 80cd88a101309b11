"""Where a guarded position comes from: ``PositionSource(base, i)`` is element ``i`` of the index tensor ``base``.

To Dynamo it is one more `Source`: it can be evaluated (through the host mirror), guarded on, and rebuilt in bytecode to
feed the graph's SymInt input. `AgreementSource` is guarded on only: whether two elements are the same number. The
guard-manager lookup has to be taught both, see `install`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
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


@dataclasses.dataclass(frozen=True)
class AgreementSource(ChainedSource):
    """Whether elements ``index`` and ``other`` of the small integer tensor at ``base`` are the same number."""

    index: int = 0
    other: int = 0

    @property
    def _name_template(self) -> str:
        return f"__load_module('{mirror.__name__}').agree({{0}}, {self.index}, {self.other})"


def install() -> None:
    """Teach Dynamo's guard builder to guard on these sources."""
    builder = dynamo_guards.GuardBuilder
    stock = builder.get_guard_manager_from_source

    @functools.wraps(stock)
    def get_guard_manager_from_source(self: Any, source: Any) -> Any:
        if type(source) is PositionSource:
            look: Callable[[Any], int] = functools.partial(mirror.read, index=source.index)
        elif type(source) is AgreementSource:
            look = functools.partial(mirror.agree, index=source.index, other=source.other)
        else:
            return stock(self, source)
        if source.name in self._cached_guard_managers:
            return self._cached_guard_managers[source.name]
        value = self.get(source)
        manager = stock(self, source.base).lambda_manager(
            python_lambda=look,
            source=source.name,
            example_value=value,
            guard_manager_enum=self.get_guard_manager_type(source, value),
        )
        self._cached_guard_managers[source.name] = manager
        return manager

    builder.get_guard_manager_from_source = get_guard_manager_from_source
    for function in (mirror.read, mirror.agree, mirror.values, mirror._load, mirror._remember):
        skip_code(function.__code__)  # they run from guards, where Dynamo would trace them
