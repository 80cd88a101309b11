"""Symbolic numbers and the environment that guards on them."""

from __future__ import annotations

from typing import Any

from fxpass.torch_internals.contracts import internal

DimDynamic: Any = internal("torch.fx.experimental.symbolic_shapes.DimDynamic")
ShapeEnv: Any = internal("torch.fx.experimental.symbolic_shapes.ShapeEnv")
StatelessSymbolicContext: Any = internal("torch.fx.experimental.symbolic_shapes.StatelessSymbolicContext")
SYMPY_INTERP: Any = internal("torch.fx.experimental.symbolic_shapes.SYMPY_INTERP")
free_symbols: Any = internal("torch.fx.experimental.symbolic_shapes.free_symbols")
free_unbacked_symbols: Any = internal("torch.fx.experimental.symbolic_shapes.free_unbacked_symbols")
statically_known_true: Any = internal("torch.fx.experimental.symbolic_shapes.statically_known_true")
SymNode: Any = internal("torch.fx.experimental.sym_node.SymNode")
PythonPrinter: Any = internal("torch.utils._sympy.printers.PythonPrinter")
