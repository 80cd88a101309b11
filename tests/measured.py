"""Which lines and branches of fxpass the tests run. `conftest` imports this where KVFIX_COVERAGE names a folder, to which
each process of pytest writes what it has run; ``python tests/measured.py FOLDER [LEAST]`` prints all of it together, and
fails where that is less than LEAST percent of the lines.

Marks are put into the code as it is imported. A tracer slows all Python that runs, nearly all of which is torch's (the
suite by 1.6); these slow what they mark. A mark stays when it has been hit: torch knows by its code object which function
of ours it must not trace, so the code of a function may not be replaced.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable

from slipcover import FileMatcher, ImportManager, Slipcover, merge_coverage, print_coverage

SOURCE = str(pathlib.Path(__file__).parents[1] / "fxpass")
LEFT_OUT = ["if TYPE_CHECKING:", "@triton.jit"]
NEVER = 2**30
"""So many hits, and code is made anew without the mark."""


def measure(folder: str) -> Callable[[], None]:
    """Mark what is imported from now on. The function that is returned writes to ``folder`` what of it has run."""
    measured = Slipcover(branch=True, d_miss_threshold=NEVER, exclude_also=LEFT_OUT)
    ImportManager(measured, FileMatcher(sources=[SOURCE])).__enter__()

    def write() -> None:
        pathlib.Path(folder, f"{os.getpid()}.json").write_text(json.dumps(measured.get_coverage()))

    return write


def report(folder: str, least: float = 0.0) -> bool:
    """Print what the notes in ``folder`` say together, and whether that is ``least`` percent of the lines."""
    everything = Slipcover(branch=True, source=[SOURCE], exclude_also=LEFT_OUT).get_coverage()
    notes = [json.loads(note.read_text()) for note in sorted(pathlib.Path(folder).glob("*.json"))]
    together = functools.reduce(merge_coverage, notes, everything)
    print_coverage(together, skip_covered=True, missing_width=60)
    ran, missed = ([together["summary"][f"{part}_{of}"] for of in ("lines", "branches")] for part in ("covered", "missing"))
    lines, branches = (100 * a / (a + b) for a, b in zip(ran, missed, strict=True))
    print(f"fxpass without the bodies of kernels: {lines:.1f} % of the lines, {branches:.1f} % of the branches")
    return lines >= least


if __name__ == "__main__":
    sys.exit(not report(sys.argv[1], *map(float, sys.argv[2:])))
