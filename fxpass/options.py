"""The options of ``torch.compile(model, backend="kvfix", options={...}, mode=...)``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

COMPILERS = ("inductor", "aot_eager", "eager")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may set.

    compiler: what the rewritten graph is handed to: "inductor" (default), "aot_eager" or "eager".
    strict: raise `KvfixError` where kvfix would warn and hand the graph on unrewritten.
    inductor: Inductor config patches, such as ``{"triton.cudagraphs": False}``.
    verify: how many calls of each graph are compared with the graph as it came (see `fxpass.verify`).
    """

    compiler: str = "inductor"
    strict: bool = False
    inductor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    verify: int = 0


_TYPES = {"compiler": str, "strict": bool, "inductor": Mapping, "verify": int}


def parse(options: Mapping[str, Any] | None = None, mode: str | None = None) -> Options:
    """Check ``options`` and ``mode`` as `torch.compile` passes them.

    Raises:
        RuntimeError: an unknown option or mode, or a wrong type; the message lists the valid ones.
    """
    given = dict(options or {})
    valid = ", ".join(f"{name}: {kind.__name__.lower()}" for name, kind in _TYPES.items())
    for name, value in given.items():
        if name not in _TYPES:
            raise RuntimeError(f"kvfix: unknown option {name!r}; valid options are {valid}")
        if not isinstance(value, _TYPES[name]):
            raise RuntimeError(
                f"kvfix: option {name!r} takes {_TYPES[name].__name__.lower()}, not {value!r}; valid options are {valid}"
            )
    if given.get("compiler", "inductor") not in COMPILERS:
        raise RuntimeError(f"kvfix: compiler {given['compiler']!r} is none of {', '.join(COMPILERS)}")
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"kvfix: mode {mode!r} is none of {', '.join(MODES)}")
    verify = int(given.get("verify", _verify_by_default()))
    if verify < 0:
        raise RuntimeError(f"kvfix: option 'verify' takes a number of calls, not {verify}")
    patches = {**_patches(mode), **({"fallback_random": True} if verify else {}), **given.get("inductor", {})}
    return Options(given.get("compiler", "inductor"), given.get("strict", False), patches, verify)


def _verify_by_default() -> int:
    """What the environment asks for in ``KVFIX_VERIFY``, for all that the process compiles."""
    asked = os.environ.get("KVFIX_VERIFY") or "0"
    if not asked.isdecimal():
        raise RuntimeError(f"kvfix: KVFIX_VERIFY takes a number of calls, not {asked!r}")
    return int(asked)


def _patches(mode: str | None) -> dict[str, Any]:
    """Inductor's settings for a mode. CUDA graphs are on unless the mode says otherwise; they do nothing on a CPU."""
    patches: dict[str, Any] = {"triton.cudagraphs": mode != "max-autotune-no-cudagraphs"}
    if mode in ("max-autotune", "max-autotune-no-cudagraphs"):
        patches.update({"max_autotune": True, "coordinate_descent_tuning": True})
    return patches
