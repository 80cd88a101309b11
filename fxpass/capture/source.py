"""Where a guarded position comes from: ``PositionSource(base, i)`` is element ``i`` of the index tensor ``base``.

To Dynamo it is one more `Source`: it can be evaluated (through the host mirror), guarded on, and rebuilt in bytecode to
feed the graph's SymInt input. `AgreementSource` (whether two elements are the same number) and `NameSource` (what a function is
called) are guarded on only. The guard-manager lookup has to be taught all of them, see `install`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import torch._dynamo.guards as dynamo_guards
from torch._dynamo.bytecode_transformation import create_call_function
from torch._dynamo.codegen import PyCodegen
from torch._dynamo.eval_frame import skip_code
from torch._guards import ChainedSource

from . import mirror
from .wrap import wrap


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


@dataclasses.dataclass(frozen=True)
class NameSource(ChainedSource):
    """The full name of the function, class or enum member at ``base``."""

    @property
    def _name_template(self) -> str:
        return f"__load_module('{__name__}').full_name({{0}})"


def full_name(value: Any) -> str:
    """Module and name of a function, a class or a member of an enum; of anything else, that it has none."""
    owner = type(value) if isinstance(value, enum.Enum) else value
    name = f"{getattr(owner, '__module__', None)}.{getattr(owner, '__qualname__', '<>')}"
    return f"{name}.{value.name}" if isinstance(value, enum.Enum) else name


def install() -> None:
    """Teach Dynamo's guard builder to guard on these sources."""
    wrap(dynamo_guards.GuardBuilder, "get_guard_manager_from_source", _manager)
    for function in (
        mirror.read,
        mirror.agree,
        mirror.all_agree,
        mirror.values,
        mirror._load,
        mirror._remember,
        full_name,
    ):
        skip_code(function.__code__)  # they run from guards, where Dynamo would trace them


def _manager(stock: Any, builder: Any, source: Any) -> Any:
    make = _MANAGERS.get(type(source))
    if make is None:
        return stock(builder, source)
    known = builder._cached_guard_managers
    if source.name not in known:
        known[source.name] = make(builder, source)
    return known[source.name]


def _element(builder: Any, source: PositionSource) -> Any:
    """The mirror is asked once for each tensor; the elements come from the tuple, without Python."""
    key = f"kvfix.values({source.base.name})"
    managers = builder._cached_guard_managers
    if key not in managers:
        values = mirror.values(builder.get(source.base))
        managers[key] = _lambda(builder, source.base, mirror.values, key, values)
    value = builder.get(source)
    enum = builder.get_guard_manager_type(source, value)
    return managers[key].tuple_getitem_manager(
        key=source.index, source=source.name, example_value=value, guard_manager_enum=enum
    )


def _agreement(builder: Any, source: AgreementSource) -> Any:
    """One question for all pairs of a tensor: each further pair joins the first one's."""
    asked = builder.__dict__.setdefault("_kvfix_agreements", {})
    name = source.base.name
    if name not in asked:
        pairs: list[tuple[int, int]] = []
        look = functools.partial(mirror.all_agree, pairs=pairs)
        asked[name] = pairs, _lambda(builder, source.base, look, source.name, True)
    pairs, manager = asked[name]
    pairs.append((source.index, source.other))
    return manager


def _lambda(builder: Any, base: Any, look: Callable[[Any], Any], name: str, value: Any) -> Any:
    return builder.get_guard_manager_from_source(base).lambda_manager(
        python_lambda=look,
        source=name,
        example_value=value,
        guard_manager_enum=dynamo_guards.GuardManagerType.GUARD_MANAGER,
    )


def _named(builder: Any, source: NameSource) -> Any:
    return _lambda(builder, source.base, full_name, source.name, builder.get(source))


_MANAGERS: dict[type, Callable[[Any, Any], Any]] = {
    PositionSource: _element,
    AgreementSource: _agreement,
    NameSource: _named,
}
