"""The options of ``torch.compile(model, backend="kvfix", options={...}, mode=...)``."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

COMPILERS = ("inductor", "aot_eager", "eager")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may set.

    compiler: what the rewritten graph is handed to: "inductor" (default), "aot_eager" or "eager".
    strict: raise `KvfixError` where kvfix would warn and hand the graph on unrewritten, or leave work outside of the core.
    inductor: Inductor config patches, such as ``{"triton.cudagraphs": False}``.
    verify: how many calls of each graph are compared with the graph as it came (see `fxpass.verify`).
    capacity: the least number of rows of a buffer for what grows; 0 stands for 64. Up to this length nothing is compiled again.
    graphs: whether the mode asks for CUDA graphs; what ``inductor`` says of them takes precedence.
    rewrite, kernels, recording: whether graphs are rewritten, kernels of kvfix's own are used, CUDA graphs are recorded.
        Each can be switched off, to find out which one a difference comes from.
    """

    compiler: str = "inductor"
    strict: bool = False
    inductor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verify: int = 0
    capacity: int = 0
    graphs: bool = True
    rewrite: bool = True
    kernels: bool = True
    recording: bool = True

    def on(self, inputs: Sequence[Any]) -> Options:
        """These options for a graph that takes ``inputs``. Their ``inductor`` says whether the mode asks for CUDA graphs.

        It does not say so where no input is on a GPU. On a CPU the setting only changes what Inductor does with complex
        tensors, and makes it give wrong numbers.
        """
        if not any(isinstance(v, torch.Tensor) and v.device.type == "cuda" for v in inputs):
            return self
        return dataclasses.replace(self, inductor={"triton.cudagraphs": self.graphs and self.recording, **self.inductor})


OWN_PATCHES = {"fallback_random", "max_autotune", "coordinate_descent_tuning"}
"""The Inductor config patches that ``verify`` and ``mode`` stand for."""
_SWITCHES = ("rewrite", "kernels", "recording")
_TYPES = {"compiler": str, "strict": bool, "inductor": Mapping, "verify": int, "capacity": int,
          **dict.fromkeys(_SWITCHES, bool)}  # fmt: skip


def parse(options: Mapping[str, Any] | None = None, mode: str | None = None) -> Options:
    """Check ``options`` and ``mode`` as `torch.compile` passes them.

    Raises:
        RuntimeError: an unknown option or mode, or a wrong type; the message lists the valid ones.
    """
    _check_variables()
    given = dict(options or {})
    valid = ", ".join(f"{name}: {kind.__name__.lower()}" for name, kind in _TYPES.items())
    for name, value in given.items():
        if name not in _TYPES:
            raise RuntimeError(f"kvfix: unknown option {name!r}{did_you_mean(name, _TYPES)}; valid options are {valid}")
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool) and _TYPES[name] is int:
            raise RuntimeError(
                f"kvfix: option {name!r} takes {_TYPES[name].__name__.lower()}, not {value!r}; valid options are {valid}"
            )
    if given.get("compiler", "inductor") not in COMPILERS:
        hint = did_you_mean(given["compiler"], COMPILERS)
        raise RuntimeError(f"kvfix: compiler {given['compiler']!r} is none of {', '.join(COMPILERS)}{hint}")
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"kvfix: mode {mode!r} is none of {', '.join(MODES)}{did_you_mean(mode, MODES)}")
    verify, capacity = int(given.get("verify", _verify_by_default())), int(given.get("capacity", 0))
    if verify < 0:
        raise RuntimeError(f"kvfix: option 'verify' takes a number of calls, not {verify}")
    if capacity < 0:
        raise RuntimeError(f"kvfix: option 'capacity' takes a number of rows, not {capacity}")
    patches = {**_patches(mode), **({"fallback_random": True} if verify else {}), **given.get("inductor", {})}
    graphs = mode != "max-autotune-no-cudagraphs"
    strict = given.get("strict", _by_default("strict", False))
    switches = {name: given.get(name, _by_default(name, True)) for name in _SWITCHES}
    return Options(given.get("compiler", "inductor"), strict, patches, verify, capacity, graphs, **switches)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`` (did you mean 'max_autotune'?)``, or nothing where none of ``names`` is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


_VARIABLES = {f"KVFIX_{name.upper()}" for name in ("strict", "verify", *_SWITCHES)}


def _check_variables() -> None:
    """Raise an error for a variable of the environment whose name is almost one of ours, or is made of an option that has no
    variable."""
    options = {f"KVFIX_{name.upper()}" for name in _TYPES}
    for name in sorted({name for name in os.environ if name.startswith("KVFIX_")} - _VARIABLES):
        meant = difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0.85)
        if meant or name in options:
            valid = ", ".join(sorted(_VARIABLES))
            raise RuntimeError(f"kvfix: no variable {name}{did_you_mean(name, meant)}; there is {valid}")


def _by_default(name: str, value: bool) -> bool:
    """What a variable such as ``KVFIX_KERNELS=0`` sets an option to, in all of the process; ``value`` if it is not set."""
    variable = f"KVFIX_{name.upper()}"
    asked = os.environ.get(variable) or str(int(value))
    if asked not in ("0", "1"):
        raise RuntimeError(f"kvfix: {variable} takes 0 or 1, not {asked!r}")
    return asked == "1"


def _verify_by_default() -> int:
    """The number of calls that the variable ``KVFIX_VERIFY`` asks for, for all that the process compiles."""
    asked = os.environ.get("KVFIX_VERIFY") or "0"
    if not asked.isdecimal():
        raise RuntimeError(f"kvfix: KVFIX_VERIFY takes a number of calls, not {asked!r}")
    return int(asked)


def _patches(mode: str | None) -> dict[str, Any]:
    """Inductor's settings for a mode, CUDA graphs aside."""
    tuned = mode in ("max-autotune", "max-autotune-no-cudagraphs")
    return {"max_autotune": True, "coordinate_descent_tuning": True} if tuned else {}
