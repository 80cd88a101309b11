"""The functions that launch kernels are compiled side by side, before Inductor loads the kernels one after the other.

    wait:  load a, compile its launcher; load b, compile its launcher; ...      ->      compile all launchers
                                                                                        wait:  load a; load b; ...

Up to version 3.6 Triton compiles a launcher in C for each list of argument types, and keeps it in its cache. Inductor has a
launcher that is ready, which does not start kernels early (`early`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def compile_launchers(modules: Iterable[Mapping[str, Any]]) -> None:
    """Compile what launches the kernels that ``modules`` hold, by name, as Inductor's futures. It waits for the kernels."""
    found = [_compiled(value) for module in modules for value in module.values()]
    kinds = {str([*kernel.src.signature.values()]): kernel for kernel in found if kernel is not None}
    if kinds:
        with ThreadPoolExecutor() as pool:
            pool.map(_compile, kinds.values())


def _compiled(value: Any) -> Any:
    """Triton's kernel of the future ``value``; None of anything else, and where Inductor launches it itself."""
    task = getattr(value, "future", None)
    with contextlib.suppress(Exception):  # who waits for the kernel is told why it did not compile
        kernel = None if task is None else task.result()[0].compile_results[0].kernel
        return kernel if hasattr(kernel, "src") else None
    return None


def _compile(kernel: Any) -> None:
    from triton.runtime import driver

    with contextlib.suppress(Exception):  # Triton tries once more, and says why
        driver.active.launcher_cls(kernel.src, kernel.metadata)
