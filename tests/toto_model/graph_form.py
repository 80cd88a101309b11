"""A functional normal form of aten graphs, and their comparison up to isomorphism.

Two graphs have the same form when they compute the same outputs, write the same contents to the same inputs and assert
the same things, by the same aten ops on the same values. docs/graph-equivalence.md lists what the form identifies, why
each of these keeps the meaning, and what the form does not identify.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind

Literals = dict[str, Any]
Operands = tuple[tuple[str, int], ...]

PLACEMENT = {"dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking"}
"""Arguments that the type of the result tells (dtype, device), or that say how memory is laid out."""

TRIVIAL = {
    "alias", "clone", "contiguous", "detach", "expand", "lift_fresh_copy", "reshape", "slice", "view",
    "_to_copy", "_unsafe_view",
}  # fmt: skip
"""Ops that give back their operand wherever the result has its type."""

OVERWRITE = {"copy", "fill"}
"""Ops that give back their second operand wherever the result has its type."""

COMMUTATIVE = {"add", "mul", "logical_and"}
CONSTANT = {"full", "scalar_tensor"}
NEW_DIM = {"unsqueeze", "stack"}
ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True, repr=False)
class Type:
    """What the form keeps of a tensor: int32 and int64 are one dtype, strides are left out."""

    dtype: str
    shape: tuple[int, ...]
    device: str

    @classmethod
    def of(cls, value: Any) -> Any:
        """The type of a tensor, a tuple of types for a tuple of tensors, None for anything else."""
        if isinstance(value, (tuple, list)):
            return tuple(cls.of(v) for v in value)
        if not isinstance(value, torch.Tensor):
            return None
        dtype = "int" if value.dtype in (torch.int32, torch.int64) else str(value.dtype).removeprefix("torch.")
        return cls(dtype, tuple(int(s) for s in value.shape), str(value.device))

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)} on {self.device}"


@dataclass(frozen=True)
class Value:
    """One value: the op that makes it, its arguments that are no tensors, and its operands by their place."""

    op: str
    literals: tuple[tuple[str, Any], ...]
    operands: Operands
    type: Any

    @property
    def name(self) -> str:
        """The op without its overload."""
        return self.op.split(".")[0]

    def literal(self, name: str) -> Any:
        return dict(self.literals)[name]

    def operand(self, place: str) -> int:
        return dict(self.operands)[place]

    @property
    def label(self) -> str:
        literals = ", ".join(f"{name}={value!r}" for name, value in self.literals)
        return f"{self.op}({literals}): {self.type}"


class Form:
    """The values of a graph, each once, and its roots: outputs, new contents of inputs, assertions.

    ``agreeing`` are the roles of index tensors of which a guard says that all elements are the same number.
    """

    def __init__(self, agreeing: Collection[str] = ()) -> None:
        self.agreeing = agreeing
        self.values: list[Value] = []
        self.lines: list[str] = []
        self.roots: list[int] = []
        self._known: dict[tuple[str, Operands], int] = {}

    def add(self, op: str, literals: Literals, operands: Operands, type: Any, line: str = "") -> int:
        """The value of ``op`` on ``operands``, simplified; an equal value is not made twice."""
        literals = _from_zero(op, literals, self._shape(operands))
        simpler = self._simpler(op.split(".")[0], literals, operands, type)
        if simpler is not None:
            return simpler
        if op.split(".")[0] == ATTENTION:
            operands = self._without_cleaning(operands)
        if op.split(".")[0] in COMMUTATIVE and len(operands) == 2 and literals.get("alpha", 1) == 1:
            operands = tuple(sorted(("", i) for _, i in operands))
        return self.intern(Value(op, tuple(sorted(literals.items())), operands, type), line)

    def constant(self, number: Any, type: Type) -> int:
        """A tensor without dims that holds ``number``."""
        wanted = float(number) if type.dtype.startswith("float") else number
        return self.intern(Value("constant", (("value", wanted),), (), type))

    def intern(self, value: Value, line: str = "") -> int:
        key = (value.label, value.operands)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
            self.lines.append(line)
        return self._known[key]

    def _shape(self, operands: Operands) -> tuple[int, ...]:
        """The shape of the first operand."""
        type = self.values[operands[0][1]].type if operands else None
        return type.shape if isinstance(type, Type) else ()

    def _simpler(self, name: str, literals: Literals, operands: Operands, type: Any) -> int | None:
        """A value that is there already and equals that of the op, or a constant."""
        if name in TRIVIAL and self.values[operands[0][1]].type == type:
            return operands[0][1]
        if name in OVERWRITE and len(operands) == 2 and self.values[operands[1][1]].type == type:
            return operands[1][1]
        if name in CONSTANT and type.shape == () and not operands:
            return self.constant(literals.get("fill_value", literals.get("s")), type)
        if name == "select":
            return self._read_through(operands[0][1], literals["dim"], literals["index"], type)
        return None

    def _read_through(self, base: int, dim: int, index: int, type: Any) -> int | None:
        """``select`` of what a `select_scatter` wrote, or of what is under it; of agreeing elements, the first."""
        value = self.values[base]
        if index > 0 and value.op == "input" and value.literal("role") in self.agreeing:
            return self.add("select.int", {"dim": dim, "index": 0}, (("self", base),), type)
        if value.name != "select_scatter" or value.literal("dim") != dim:
            return None
        if value.literal("index") == index:
            return value.operand("src")
        under = value.operand("self")
        return self.add("select.int", {"dim": dim, "index": index}, (("self", under),), type)

    def _without_cleaning(self, operands: Operands) -> Operands:
        """Keys and values of attention without ``where(seen[:, None], x, 0)``, where the mask is ``seen[None, :]``."""
        mask = dict(operands).get("attn_mask")
        if mask is None:
            return operands
        return tuple((place, self._uncleaned(i, mask) if place in ("key", "value") else i) for place, i in operands)

    def _uncleaned(self, operand: int, mask: int) -> int:
        where, rows = self.values[operand], self.values[mask]
        if where.op != "where.self" or rows.op != "unsqueeze.default" or rows.literal("dim") != 0:
            return operand
        condition, kept, other = (self.values[where.operand(place)] for place in ("condition", "self", "other"))
        by_row = condition.op == "unsqueeze.default" and condition.literal("dim") == 1
        hides = rows.type.dtype == "bool" and len(rows.type.shape) == 2 and condition.operands == rows.operands
        zero = other.op == "constant" and other.literal("value") == 0
        return where.operand("self") if by_row and hides and zero and kept.type == where.type else operand

    @cached_property
    def live(self) -> list[int]:
        """The values that a root needs, operands first."""
        needed: set[int] = set()
        todo = list(self.roots)
        while todo:
            i = todo.pop()
            if i not in needed:
                needed.add(i)
                todo += [operand for _, operand in self.values[i].operands]
        return sorted(needed)

    @cached_property
    def digests(self) -> dict[int, str]:
        """For each live value a hash of all that it is computed from, equal in two forms for equal computations."""
        found: dict[int, str] = {}
        for i in self.live:
            value = self.values[i]
            operands = sorted((place, found[operand]) for place, operand in value.operands)
            found[i] = hashlib.sha256(repr((value.label, operands)).encode()).hexdigest()
        return found

    def graph(self) -> nx.MultiDiGraph:
        """Nodes labeled with op, literals and type; edges with the place of the operand, "" under commutative ops."""
        graph = nx.MultiDiGraph()
        for i in self.live:
            graph.add_node(i, label=self.values[i].label, digest=self.digests[i])
            for place, operand in self.values[i].operands:
                graph.add_edge(operand, i, place=place)
        return graph

    def describe(self, i: int) -> str:
        """One value as an expression, with its type and source line."""
        line = f"   # {self.lines[i]}" if self.lines[i] else ""
        return f"{self.expression(i)}: {self.values[i].type}{line}"

    def expression(self, i: int, depth: int = 4) -> str:
        """How a value is computed, some operands deep."""
        value = self.values[i]
        if value.op == "input":
            return str(value.literal("role"))
        if not depth:
            return "..."
        arguments = [f"{place}={self.expression(j, depth - 1)}".lstrip("=") for place, j in value.operands]
        arguments += [f"{name}={literal!r}" for name, literal in value.literals]
        return f"{value.op}({', '.join(arguments)})"


def isomorphic(first: Form, second: Form) -> bool:
    """Whether networkx finds an isomorphism of the two graphs that keeps labels and places.

    The digests only narrow the search: an isomorphism that keeps labels keeps them too.
    """
    nodes = nx.algorithms.isomorphism.categorical_node_match(["label", "digest"], [None, None])
    edges = nx.algorithms.isomorphism.categorical_multiedge_match("place", None)
    return nx.is_isomorphic(first.graph(), second.graph(), node_match=nodes, edge_match=edges)


def difference(first: Form, second: Form, names: tuple[str, str] = ("first", "second"), most: int = 4) -> str:
    """Empty for isomorphic forms; else the first values that only one of them has: all their operands are in both."""
    if isomorphic(first, second):
        return ""
    text = []
    for name, mine, other in ((names[0], first, second), (names[1], second, first)):
        theirs = set(other.digests.values())
        own = [i for i in mine.live if mine.digests[i] not in theirs]
        begin = [i for i in own if all(mine.digests[j] in theirs for _, j in mine.values[i].operands)]
        text.append(f"{name}: {len(own)} of {len(mine.live)} values are not in the other graph; they begin with")
        text += [f"    {mine.describe(i)}" for i in begin[:most]]
    return "\n".join(text)


def normal_form(gm: torch.nn.Module, args: Sequence[Any], roles: Sequence[str], agreeing: Collection[str] = ()) -> Form:
    """The form of ``gm`` called with ``args``.

    ``gm`` is not run, but exported: numbers among ``args`` and sizes are put in. ``roles`` names each argument; inputs
    of two forms are the same where their roles are. For ``agreeing`` see `Form`.
    """
    with torch.no_grad():
        program = torch.export.export(gm, tuple(args), strict=False).run_decompositions({})
    return _Reader(program, roles, agreeing).form


class _Reader:
    """Reads an exported program, which is functional: one op after the other into a `Form`."""

    def __init__(self, program: torch.export.ExportedProgram, roles: Sequence[str], agreeing: Collection[str]) -> None:
        self.program = program
        self.form = Form(agreeing)
        self.ids: dict[fx.Node, int] = {}
        self.numbers: dict[fx.Node, Any] = {}
        inputs = {}
        given = iter(roles)
        for node, spec in zip(program.graph.find_nodes(op="placeholder"), program.graph_signature.input_specs, strict=True):
            if spec.kind is not InputKind.USER_INPUT:
                self.ids[node] = self._lifted(str(spec.target))
                continue
            inputs[node.name] = role = next(given)
            if isinstance(node.meta["val"], torch.Tensor):
                self.ids[node] = self.form.intern(Value("input", (("role", role),), (), Type.of(node.meta["val"])))
            else:
                self.numbers[node] = node.meta["val"]
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
        self._outputs(inputs)

    def _lifted(self, target: str) -> int:
        tensor = self.program.constants.get(target, self.program.state_dict.get(target))
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 0:
            raise ValueError(f"{target} is no number: the form has no constants with dims")
        return self.form.constant(tensor.item(), Type.of(tensor))

    def _call(self, node: fx.Node) -> None:
        target, value = node.target, node.meta.get("val")
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return
        if not isinstance(target, torch._ops.OpOverload):  # operator.getitem on a tuple of tensors
            operand, index = node.args
            of = (("self", self.ids[operand]),)  # type: ignore[index]
            self.ids[node] = self.form.add("getitem", {"index": index}, of, Type.of(value))
            return
        literals, operands = self._arguments(node)
        op = str(target).removeprefix("aten.")
        if torch.Tag.nondeterministic_seeded in target.tags and literals.get("dropout_p") != 0:
            raise ValueError(f"{target} draws random numbers: equal calls have unequal values")
        made = self.form.add(op, literals, operands, Type.of(value), _line(node))
        self.ids[node] = made
        if value is None:
            self.form.roots.append(made)

    def _arguments(self, node: fx.Node) -> tuple[Literals, Operands]:
        """The arguments by name, defaults filled in, tensors apart from the rest."""
        assert isinstance(node.target, torch._ops.OpOverload)
        schema = node.target._schema.arguments
        given = {**{a.name: value for a, value in zip(schema[: len(node.args)], node.args, strict=True)}, **node.kwargs}
        literals: Literals = {}
        operands: list[tuple[str, int]] = []
        for argument in schema:
            name, value = argument.name, given.get(argument.name, argument.default_value)
            if isinstance(value, fx.Node) and value in self.ids:
                operands.append((name, self.ids[value]))
            elif isinstance(value, (list, tuple)) and any(isinstance(v, fx.Node) and v in self.ids for v in value):
                operands += [(f"{name}[{i}]", self.ids[v]) for i, v in enumerate(value)]
            elif name not in PLACEMENT:
                literals[name] = self._literal(value)
        return literals, tuple(operands)

    def _literal(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(self._literal(v) for v in value)
        if isinstance(value, fx.Node):
            return self.numbers[value]
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise ValueError(f"{value} is not known at the time of the call")
        return value

    def _outputs(self, inputs: dict[str, str]) -> None:
        (results,) = self.program.graph.output_node().args
        place = 0
        for result, spec in zip(results, self.program.graph_signature.output_specs, strict=True):  # type: ignore[arg-type]
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                what = f"new contents of {inputs[str(spec.target)]}"
            elif spec.kind is OutputKind.USER_OUTPUT:
                what, place = f"output {place}", place + 1
            else:
                raise ValueError(f"the graph writes to {spec.target}, which is no input")
            operands = (("", self.ids[result]),) if result in self.ids else ()
            number = () if operands else (("value", self._literal(result)),)
            self.form.roots.append(self.form.intern(Value(what, number, operands, None)))


def _from_zero(op: str, literals: Literals, shape: tuple[int, ...]) -> Literals:
    """Dims and indices counted from the front, ends of slices within the size."""
    name, rank = op.split(".")[0], len(shape)
    dims = rank + (name in NEW_DIM)

    def wrap(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(wrap(v) for v in value)
        return value % dims if isinstance(value, int) and not isinstance(value, bool) and dims else value

    found = {n: wrap(v) if n in ("dim", "dims", "dim0", "dim1", "dimension") else v for n, v in literals.items()}
    size = shape[found["dim"]] if name in ("select", "slice", "select_scatter") else 0
    if name in ("select", "select_scatter"):
        found["index"] %= size
    if name == "slice":
        found["start"] = _bound(found["start"], 0, size)
        found["end"] = _bound(found["end"], size, size)
    return found


def _bound(value: int | None, default: int, size: int) -> int:
    value = default if value is None else value
    return min(max(value + size, 0) if value < 0 else value, size)


def _line(node: fx.Node) -> str:
    """The innermost source line of ``node``."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if 'File "' in line]
    if not lines:
        return ""
    file, _, rest = lines[-1].removeprefix('File "').partition('", line ')
    return f"{file.rsplit('/', 1)[-1]}:{rest.partition(',')[0]}"
