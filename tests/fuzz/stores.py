"""What a cache holds its numbers in: how rows go in, and how a part that is read comes out as float numbers."""

from __future__ import annotations

import dataclasses
import re

from .sketch import Sketch, Val

FLOATS = {"float32": 10, "float64": 2, "bfloat16": 2, "float16": 1.5}
STORES = {
    "same": 16,
    "bfloat16": 1.5,
    "float8_e4m3fn": 1,
    "float8_e5m2": 0.5,
    "int8": 1,
    "complex64": 1,
    "float16": 0.5,
    "float64": 0.5,
}


@dataclasses.dataclass(frozen=True)
class Store:
    """The dtype of the buffers and that of the arithmetic."""

    dtype: str
    floats: str

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def casts(self) -> bool:
        """Whether a write makes its numbers of floats without being told to."""
        return self.is_float or self.dtype.startswith("float8")

    @property
    def bits(self) -> str:
        """The integers in which the numbers are seen as bits; nothing for complex ones."""
        if self.dtype == "complex64":
            return ""
        return {"float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}.get(self.dtype, "int" + re.sub(r"\D", "", self.dtype))

    def rows(self, code: str) -> str:
        """Float rows as the buffer holds them."""
        if self.dtype == self.floats:
            return code
        if self.dtype == "int8":
            return f"({code} * 16).round().clamp(-127, 127).to(torch.int8)"
        if self.dtype == "complex64":
            return f"torch.complex({code}, {code} * 0.5)"
        return f"({code}).to(torch.{self.dtype})"

    def read(self, sk: Sketch, value: Val) -> Val:
        """A part of a buffer as float numbers."""
        if self.dtype == self.floats:
            return value
        if self.dtype == "int8":
            return value.but(f"({value.code}.to(torch.{self.floats}) / 16)")
        if self.dtype == "complex64":
            return value.but(f"{value.code}" + sk.choices.pick("complex", (".real", ".abs()", ".imag", ".angle()")))
        return value.but(f"{value.code}.to(torch.{self.floats})")


def store(sk: Sketch) -> Store:
    floats = sk.choices.weighed("floats", FLOATS)
    dtype = sk.choices.weighed("store", STORES)
    if dtype == "complex64":
        floats = "float32"
    return Store(floats if dtype == "same" else dtype, floats)
