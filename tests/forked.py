"""Processes that begin with what they need imported: one imports it and waits, and a run is a fork of it.

    python forked.py MODULE...        reads runs from its input, a JSON object a line, and answers with their exit status

Importing torch takes most of what a small process takes.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
import types


class Forked:
    """A process of its own, in ``environment``, that has imported ``modules`` and forks for each run."""

    def __init__(self, *modules: str, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, *modules]
        self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(self, script: str, *args: str, code: str = "", environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run ``script`` with ``args``, and ``code`` before it, where ``environment`` is set besides."""
        assert self.parent.stdin and self.parent.stdout
        with tempfile.TemporaryDirectory() as folder:
            told = {"script": script, "args": args, "code": code, "environment": environment, "folder": folder}
            print(json.dumps(told), file=self.parent.stdin, flush=True)
            status = int(self.parent.stdout.readline())
            out, err = (pathlib.Path(folder, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess([script, *args], status, out, err)

    def end(self) -> None:
        self.parent.communicate()


def child(told: dict) -> int:
    """What a run does in the fork; its exit status."""
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(os.path.join(told["folder"], name), os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.update(told["environment"])
    sys.argv = [told["script"], *told["args"]]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__file__ = told["script"]  # where Dynamo looks for the source
    try:
        for text, path in ((told["code"], "<code>"), (pathlib.Path(told["script"]).read_text(), told["script"])):
            exec(compile(text, path, "exec"), vars(main))
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main(*modules: str) -> None:
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        if fork := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
        else:
            os._exit(child(json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
