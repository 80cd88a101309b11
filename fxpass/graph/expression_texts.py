"""Numbers as a user writes them: PyTorch's functions on numbers in Python's words.

    FloorDiv(s0 + 1, 2) + 1                     (s0 + 1) // 2 + 1
    TruncToInt(OpaqueUnaryFn_sqrt(s0))          int(math.sqrt(s0))
"""

from __future__ import annotations

from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from .numbers import number, to_expr

_CALLED = {"ToFloat": "float", "TruncToInt": "int", "RoundToInt": "round", "CeilToInt": "math.ceil",
           "FloorToInt": "math.floor", "Max": "max", "Min": "min"}  # fmt: skip
_BETWEEN = {"FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%", "IntTrueDiv": "/", "FloatTrueDiv": "/"}
_OF_MATH = "OpaqueUnaryFn_"


def expression_text(value: Any) -> str:
    """The number ``value``, or an expression, as the report prints it: ``s0 + 1``."""
    value = to_expr(number(value))
    return _AsPython().doprint(value) if isinstance(value, sympy.Basic) else str(value)


class _AsPython(StrPrinter):
    printmethod = ""  # a method of PyTorch's functions, which would go before ours

    def _print_Function(self, call: Any) -> str:
        name = type(call).__name__
        if name in _BETWEEN:
            left, right = self.parenthesize(call.args[0], PRECEDENCE["Mul"]), self.parenthesize(call.args[1], PRECEDENCE["Pow"])
            return f"{left} {_BETWEEN[name]} {right}"
        called = name.replace(_OF_MATH, "math.") if name.startswith(_OF_MATH) else _CALLED.get(name, name)
        return f"{called}({', '.join(map(self._print, call.args))})"

    def _print_FloatPow(self, call: Any) -> str:
        base, exponent = (self.parenthesize(a, PRECEDENCE["Pow"]) for a in call.args)
        return f"{base}**{exponent}"

    _print_PowByNatural = _print_FloatPow
    _print_Max = _print_Min = _print_Mod = _print_Function
