"""kvfix on the command line: what becomes of a model's key/value caches under torch.compile, and what that gains.

A factory, ``MODULE:FACTORY``, is a function without arguments that returns ``(callable, args, kwargs)``. The callable
is compiled with kvfix and called ``--calls`` times, without gradients: Dynamo takes a number for a constant until it
has seen it move, so the decode step of a cache shows up in the second call at the earliest.

What `demo` and `bench` run is installed under the entry points ``kvfix_demo`` and ``kvfix_bench``: a function that takes
what the command line says. A benchmark's module has ``CONFIGS``, the first of which is the default, and may have
``DEFAULT_SIZES``. What ``bench --model`` runs, under ``kvfix_model``, takes the patterns of approaches and the file.

Exit status: 0; 1 where the callable fails, or `explain` has found something that was left as it was; 2 where the command
line, the module or the factory is wrong.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from .arguments import Compiler, CompilerOption, fail
from .print_explain import explain_target, print_graph

app = typer.Typer(help=__doc__.splitlines()[0], no_args_is_help=True, add_completion=False, rich_markup_mode=None)

app.command("print", short_help="Print the last graph of a callable.")(print_graph)
app.command(
    "explain", short_help="Print what kvfix found and did.", context_settings={"ignore_unknown_options": True}
)(explain_target)

VerifyOption = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Compare so many first calls of each graph with the graph as it came."),
]


@app.command(short_help="Decode with a small model in nine ways.")
def demo(
    compiler: Annotated[Compiler | None, typer.Option(help="Chosen by what this machine has, if not given.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of the random weights and series.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    verify: VerifyOption = None,
    name: Annotated[str | None, typer.Option(help="Which demo, where several are installed.")] = None,
) -> None:
    """Decode with a small model in every way there is, and compare: differences, graphs, breaks, time."""
    run = _installed("demo", name)
    chosen = None if compiler is None else compiler.value
    raise typer.Exit(run(compiler=chosen, device=device, seed=seed, as_json=as_json, verify=verify))


@app.command(short_help="Measure every way to decode.")
def bench(
    size: Annotated[list[str] | None, typer.Option(help="As the benchmark writes them; may be repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Approaches, as '* eager'; may be repeated.")] = None,
    config: Annotated[str | None, typer.Option(help="Of the model; the benchmark's first, if not given.")] = None,
    layers: Annotated[int | None, typer.Option(help="Another number of layers.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Forecasts of each approach, in turns.")] = 7,
    warm: Annotated[bool, typer.Option(help="Compile again in a second process with the caches of the first.")] = True,
    compiles: Annotated[int, typer.Option(min=1, help="Cold compilations, where the benchmark takes several.")] = 1,
    at_once: Annotated[
        bool, typer.Option(help="Compile all, of all sizes, at the same time, and leave out how long it takes.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    compiler: CompilerOption = Compiler.inductor,
    json: Annotated[Path | None, typer.Option(help="Write all measurements to this file.")] = None,
    recorded: Annotated[Path | None, typer.Option("--show", help="Only print what such a file holds.")] = None,
    name: Annotated[str | None, typer.Option(help="Which benchmark, where several are installed.")] = None,
    model: Annotated[str | None, typer.Option(help="Measure this model instead, in place of sizes.")] = None,
) -> None:
    """Measure every way to decode: compile and forecast times, launches, differences, memory, and the floor."""
    if model is not None:
        raise typer.Exit(_installed("model", model)(only or [], json))
    run = _installed("bench", name)
    own = sys.modules[run.__module__]
    sizes, config = size or list(getattr(own, "DEFAULT_SIZES", ())), config or next(iter(own.CONFIGS))
    if not sizes and recorded is None:
        fail("which sizes? This benchmark has none of its own; --size says them")
    raise typer.Exit(
        run(sizes, only or [], config, layers, rounds, warm, compiles, at_once, device, compiler.value, json, recorded)
    )


@app.command("reach", short_help="Run cases eager, stock and with kvfix.")
def run_reach(
    module: Annotated[str | None, typer.Argument(help="Has a list CASES.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this one, by its name; may be repeated.")] = None,
    compiler: CompilerOption = Compiler.eager,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    verify: VerifyOption = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows to this file; --case keeps its others.")] = None,
    recorded: Annotated[Path | None, typer.Option("--show", help="Only print what such a file holds.")] = None,
) -> None:
    """Run cases eager, stock and with kvfix; print what became of each. Exit status 1 if one is not as it should be."""
    from . import reach_rows

    others = _rows_in(json) if json is not None and case and json.exists() else []
    if recorded is not None:
        rows = _rows_in(recorded)
    else:
        rows = _run_cases(module, case or [], compiler, device, verify)
        if json is not None:
            reach_rows.save_rows(json, rows, others)
    if as_markdown:
        typer.echo(reach_rows.markdown(rows))
    else:
        reach_rows.show(rows)
    raise typer.Exit(1 if any(row.problems for row in rows) else 0)


def _rows_in(path: Path) -> list[Any]:
    """The rows that `reach` has written to ``path``."""
    from . import reach_rows

    try:
        return reach_rows.read_rows(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{path} is no file of kvfix reach: {type(error).__name__}")


def _run_cases(
    module: str | None, names: list[str], compiler: Compiler, device: str, verify: int | None
) -> list[Any]:
    """The rows of the cases of ``module``: those with the ``names``, if there are any, else all."""
    import torch

    from . import reach as runner

    if module is None:
        fail("which cases? Name a module with a list CASES, such as tests.reach.cases in kvfix's repository")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        fail(f"no device {device!r} here; there is cpu, and cuda where torch finds a GPU")
    try:
        cases = runner.load_cases(module)
    except (ImportError, AttributeError) as error:
        fail(f"{module}: {error}")
    if not cases:
        fail(f"{module}: CASES is empty")
    if missing := set(names) - {case.name for case in cases}:
        fail(f"{module} has no case {', '.join(sorted(missing))}; it has {', '.join(case.name for case in cases)}")
    cases = [case for case in cases if not names or case.name in names]
    return [runner.run(case, compiler.value, device, verify) for case in cases]


def _installed(kind: str, name: str | None) -> Any:
    """What is installed under ``name`` as a ``kvfix_{kind}`` entry point; without a name, the only one."""
    installed = {entry.name: entry for entry in entry_points(group=f"kvfix_{kind}")}
    if name is None and len(installed) == 1:
        (name,) = installed
    if name not in installed:
        wrong = f"which {kind}? --name says it" if name is None else f"no {kind} {name!r}"
        fail(f"{wrong}; installed: {', '.join(sorted(installed)) or 'none'}")
    try:
        return installed[name].load()
    except ImportError as error:  # it belongs to a checkout, and is not in the package
        fail(f"{kind} {name!r} is not here: {error}")
