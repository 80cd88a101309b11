"""The sources of guarded positions: how Dynamo evaluates a number of an index tensor, guards on it, and passes it to the graph.

    PositionSource(base, i)          element ``i`` of the index tensor ``base``               evaluated, guarded, passed
    AggregateSource(base, text)      what many elements make, such as ``lens.max()``          evaluated, guarded, passed
    ExpressionSource(base, text)     what ops make of ``base``, and of others beside it       evaluated, guarded, passed
    AgreementSource(base, i, j)      whether two elements are equal                           guarded
    ItemSource(base, text)           the item of a list at a place that the caller's ints make evaluated, guarded, passed
    LengthSource(base)               the length of a list                                     evaluated, guarded, passed
    NameSource(base)                 the full name of a function or a class                   guarded

All numbers of tensors are read through the host mirror. `builder` makes the guards.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from fxpass.index_tensors.contents import Extreme
from fxpass.torch_internals.dynamo.names import ChainedSource, GuardBuilder, Source

from . import functions


@dataclasses.dataclass(frozen=True)
class PositionSource(ChainedSource):
    """Element ``index`` (row-major) of the small integer tensor at ``base``, read through the host mirror.

    is_there: whether the guards on the tensor tell that it has such an element, since they fix its size.
    """

    index: int = 0
    is_there: bool = dataclasses.field(default=False, compare=False)

    def make_guard(self, fn: Callable[..., Any]) -> Any:
        """A guard of the kind ``fn``. A guard on the tensor tells that an element is an int; one on the element would look into
        the mirror in each call."""
        if self.is_there and fn is GuardBuilder.TYPE_MATCH:
            return self.base.make_guard(fn)
        return super().make_guard(fn)

    @property
    def _name_template(self) -> str:
        return f"__load_module('{functions.__name__}').read({{0}}, {self.index})"

    def reconstruct(self, codegen: Any) -> None:
        _call(codegen, "read", self.base, self.index)


@dataclasses.dataclass(frozen=True)
class AggregateSource(ChainedSource):
    """The value of the `formula_text` ``text`` for the small integer tensor at ``base``, read through the host mirror.

    extreme: of which elements it is the largest or the smallest, if it is.
    """

    text: str = ""
    extreme: Extreme | None = dataclasses.field(default=None, compare=False, kw_only=True)

    @property
    def _name_template(self) -> str:
        return f"__load_module('{functions.__name__}').computed({{0}}, {self.text!r})"

    def reconstruct(self, codegen: Any) -> None:
        _call(codegen, "computed", self.base, self.text)


@dataclasses.dataclass(frozen=True)
class ExpressionSource(AggregateSource):
    """The number that the expression ``text`` makes of what is at ``base``, and at ``others`` (`expressions`)."""

    others: tuple[Any, ...] = ()

    @property
    def _name_template(self) -> str:
        text, *others = (value.replace("{", "{{").replace("}", "}}") for value in (repr(self.text), *self.names))
        return f"__load_module('{functions.__name__}').computed_by({', '.join([text, '{0}', *others])})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of ``others``."""
        return tuple(other.name for other in self.others)

    def reconstruct(self, codegen: Any) -> None:
        _call(codegen, "computed_by", self.text, self.base, *self.others)


def _call(codegen: Any, function: str, *operands: Any) -> None:
    """Emit bytecode for ``functions.function(*operands)``, which are sources and constants."""
    codegen.add_push_null(lambda: codegen.load_import_from(functions.__name__, function))
    for operand in operands:
        codegen(operand) if isinstance(operand, Source) else codegen.append_output(codegen.create_load_const(operand))
    codegen.call_function(len(operands), False)


@dataclasses.dataclass(frozen=True)
class AgreementSource(ChainedSource):
    """Whether elements ``index`` and ``other`` of the small integer tensor at ``base`` are equal."""

    index: int = 0
    other: int = 0

    @property
    def _name_template(self) -> str:
        return f"__load_module('{functions.__name__}').agree({{0}}, {self.index}, {self.other})"


@dataclasses.dataclass(frozen=True)
class ItemSource(ChainedSource):
    """The item of the list, tuple, dict or `ModuleList` at ``base``, at the place that ``text`` makes of the ints ``n``, which
    are at ``numbers``."""

    text: str = ""
    numbers: tuple[Any, ...] = ()

    @property
    def _name_template(self) -> str:
        place = self.text
        for i, number in enumerate(self.numbers):
            place = place.replace(f"n[{i}]", number.name)
        return "{0}[" + place.replace("{", "{{").replace("}", "}}") + "]"

    def reconstruct(self, codegen: Any) -> None:
        _call(codegen, "item", self.text, self.base, *self.numbers)


@dataclasses.dataclass(frozen=True)
class LengthSource(ChainedSource):
    """The length of the list, tuple, dict or deque at ``base``."""

    @property
    def _name_template(self) -> str:
        return "len({0})"

    def reconstruct(self, codegen: Any) -> None:
        _call(codegen, "length", self.base)


@dataclasses.dataclass(frozen=True)
class NameSource(ChainedSource):
    """The full name of the function, class or enum member at ``base``."""

    @property
    def _name_template(self) -> str:
        return f"__load_module('{__name__}').full_name({{0}})"


NUMBERS_OF_TENSORS = (PositionSource, AggregateSource)
"""The sources of numbers that the graph may have moved by the time that Dynamo writes back what the frame has changed."""


def full_name(value: Any) -> str:
    """Module and name of a function, a class or a member of an enum; ``<>`` stands for the name of anything else."""
    owner = type(value) if isinstance(value, enum.Enum) else value
    name = f"{getattr(owner, '__module__', None)}.{getattr(owner, '__qualname__', '<>')}"
    return f"{name}.{value.name}" if isinstance(value, enum.Enum) else name


def user_text(source: Any) -> str:
    """``source`` as the user would write it: an element of an index tensor as ``L['lens'][0]``."""
    if isinstance(source, PositionSource):
        return f"{source.base.name}[{source.index}]"
    if isinstance(source, ExpressionSource):
        return f"{source.text} of v = [{', '.join([source.base.name, *source.names])}]"
    if isinstance(source, AggregateSource):
        return f"{source.text} of v = {source.base.name}"
    return str(source.name)
