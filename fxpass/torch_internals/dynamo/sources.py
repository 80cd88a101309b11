"""Where a guarded position comes from: ``PositionSource(base, i)`` is element ``i`` of the index tensor ``base``.

To Dynamo it is one more `Source`: it can be evaluated (through the host mirror), guarded on, and rebuilt in bytecode to
feed the graph's SymInt input. So is `AggregateSource(base, text)`, what all elements make: ``lens.max()``. `AgreementSource`
(whether two elements are the same number) and `NameSource` (what a function is called) are guarded on only. How:
`guard_managers.py`.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from fxpass.index_tensors import mirror
from fxpass.torch_internals.dynamo.names import ChainedSource


@dataclasses.dataclass(frozen=True)
class PositionSource(ChainedSource):
    """Element ``index`` (row-major) of the small integer tensor at ``base``, read through the host mirror."""

    index: int = 0

    @property
    def _name_template(self) -> str:
        return f"__load_module('{mirror.__name__}').read({{0}}, {self.index})"

    def reconstruct(self, codegen: Any) -> None:
        codegen.add_push_null(lambda: codegen.load_import_from(mirror.__name__, "read"))
        codegen(self.base)
        codegen.append_output(codegen.create_load_const(self.index))
        codegen.call_function(2, False)


@dataclasses.dataclass(frozen=True)
class AggregateSource(ChainedSource):
    """What the `formula` ``text`` makes of the elements of the small integer tensor at ``base``."""

    text: str = ""

    @property
    def _name_template(self) -> str:
        return f"__load_module('{mirror.__name__}').computed({{0}}, {self.text!r})"

    def reconstruct(self, codegen: Any) -> None:
        codegen.add_push_null(lambda: codegen.load_import_from(mirror.__name__, "computed"))
        codegen(self.base)
        codegen.append_output(codegen.create_load_const(self.text))
        codegen.call_function(2, False)


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
