"""What is counted of stock torch.compile in the runs that kvfix is compared with. A script runs in a process of its own.

In that process, ``python -m fxpass.tools.stock OUT GRAD SCRIPT ARGUMENTS``, "kvfix" names a backend that hands each graph, as
it came, to the compiler that kvfix would have used. Nothing of Dynamo is replaced.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fxpass.execute.compilation.compilers import as_stock
from fxpass.options import parse
from fxpass.report import store
from fxpass.torch_internals.dynamo.names import register_backend

from .counting import Launches, counting
from .running import as_dict, script
from .target import one_line

Stock = dict[str, int | str | None]
"""What is counted; in place of it, the "error" that a run ended with."""


def stock_counts(run: Callable[[], Launches | None]) -> Stock:
    """What Dynamo counts of ``run()``, without kvfix."""
    try:
        with counting() as counts:
            launches = run()
    except (Exception, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code:
            return {"error": one_line(error)}
        launches = None
    return dict(as_dict(counts, launches))


def stock_of_script(path: str, arguments: Sequence[str], grad: bool) -> Stock:
    """What Dynamo counts of the script at ``path``, without kvfix. The script's output is not shown."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "fxpass.tools.stock", str(out), str(int(grad)), path, *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if not out.exists():
            said = done.stderr.strip().splitlines() or ["silent"]
            return {"error": f"ended with exit status {done.returncode}: {said[-1]}"}
        return dict(json.loads(out.read_text()))


def _main(out: str, grad: str, path: str, *arguments: str) -> None:
    def stock(gm: Any, inputs: Sequence[Any], *, mode: Any = None, options: Any = None, **rest: Any) -> Callable[..., Any]:
        return as_stock(gm, parse(options, mode).on(inputs))

    register_backend(stock, name="kvfix")
    found = stock_counts(script(path, arguments, bool(int(grad))))
    if store.reports():
        found = {"error": "the script has kvfix itself in the place of its name"}
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
