"""``kvfix print`` and ``kvfix explain``: what a callable, or a script, compiles to."""

from __future__ import annotations

import contextlib
import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import Calls, Compiler, CompilerOption, Grad, TargetName, fail
from .output import on_stderr

if TYPE_CHECKING:
    from fxpass.report.explanation import Explanation

    from .running import Run
    from .stock import Stock
    from .target import Target


class Stage(str, Enum):
    """What `print_graph` prints."""

    before = "before"
    after = "after"
    diff = "diff"
    core = "core"


def print_graph(
    target: TargetName,
    stage: Annotated[Stage, typer.Option(help="The graph before or after, their diff, or its static part.")] = Stage.after,
    calls: Calls = 3,
    compiler: CompilerOption = Compiler.eager,
    grad: Grad = False,
) -> None:
    """Print the code of the last graph that a callable compiles to."""
    from fxpass.report.text import colored, wide

    found = _of_target(target, calls, compiler, grad)
    if found.error:
        fail(found.error, status=1)
    report = found.reports[-1]
    code = report.diff() if stage is Stage.diff else getattr(report, stage.value)
    if not code:
        what = "is not changed" if stage is Stage.diff else "has no static part" if stage is Stage.core else "has no such code"
        fail(f"{report.name} {what}. {report.unfit or ' '.join(report.notes)}".strip(), status=1)
    wide().print(colored(code))


def explain_target(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="MODULE:FACTORY | SCRIPT.py | -m MODULE", help="What is called, or run.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Of the script; behind -- those that are options here.")] = None,
    as_module: Annotated[bool, typer.Option("-m", help="Run a module, as python -m does.")] = False,
    calls: Calls = 3,
    compiler: CompilerOption = Compiler.eager,
    grad: Grad = False,
    compare: Annotated[bool, typer.Option("--compare", help="The same with stock; a script runs again for it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    page: Annotated[Path | None, typer.Option("--html", help="Write the graphs, before and after, to this file.")] = None,
) -> None:
    """Print what kvfix found and did, for every graph. Exit status 1 if something was left as it was, or the run failed."""
    is_script = target.endswith(".py") or as_module
    if arguments and not is_script:
        wrong = next((word for word in arguments if word.startswith("-")), None)
        known = [name for parameter in context.command.params for name in parameter.opts]
        if wrong is not None:
            from fxpass.options import did_you_mean

            fail(f"no option {wrong}{did_you_mean(wrong, known)}")
        fail(f"only a script takes arguments, not {target}: {' '.join(arguments)}")
    with on_stderr() if as_json else contextlib.nullcontext():
        found = _of_script(target, arguments or [], grad) if is_script else _of_target(target, calls, compiler, grad)
        if compare and is_script:
            from .stock import stock_of_script

            found.stock = stock_of_script(target, arguments or [], grad)
        elif compare:
            found.stock = _stock(target, calls, compiler, grad)
    if page is not None:
        _write(found, page)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        from fxpass.report.explanation_text import rendered
        from fxpass.report.text import wide

        wide().print(rendered(found))
    if found.error:
        fail(found.error, status=1)
    raise typer.Exit(1 if found.is_left else 0)


def _write(found: Explanation, page: Path) -> None:
    from fxpass.report.html import html

    try:
        html(found, page)
    except OSError as error:
        fail(f"cannot write {page}: {error.strerror}")


def _of_target(name: str, calls: int, compiler: Compiler, grad: bool) -> Explanation:
    from .running import LAUNCHES, has_gpu
    from .running import calls as called

    target = _load(name)
    options = {"compiler": compiler.value}
    found = _explained(called(target, calls, grad, "kvfix", options), f"calling what {name} returned")
    if not found.reports:
        fail(f"what {name} returned compiled to no graph in {calls} calls", status=1)
    if has_gpu() and found.counts[LAUNCHES] is None:
        typer.echo(f"kvfix: call {calls} still compiled or recorded: more --calls tell what a step launches", err=True)
    return found


def _of_script(path: str, arguments: list[str], grad: bool) -> Explanation:
    import os

    from .running import script
    from .target import TargetError, check_module

    if not path.endswith(".py"):
        try:
            check_module(path)
        except TargetError as error:
            fail(str(error))
    elif not os.path.isfile(path):
        fail(f"no file {path}")
    found = _explained(script(path, arguments, grad), f"running {path}")
    if not found.reports:
        fail(f"{path} compiled no graph with kvfix", status=1)
    return found


def _explained(run: Run, doing: str) -> Explanation:
    """What came of ``run``, also where it failed after some graphs."""
    from .running import explained

    found = explained(run, doing)
    if found.error and not found.reports:
        fail(found.error, status=1)
    return found


def _stock(name: str, calls: int, compiler: Compiler, grad: bool) -> Stock:
    """What stock counts, of a callable made anew."""
    from .running import calls as called
    from .stock import stock_counts

    return stock_counts(called(_load(name), calls, grad, compiler.value))


def _load(name: str) -> Target:
    from .target import TargetError, load

    try:
        return load(name)
    except TargetError as error:
        fail(str(error))
