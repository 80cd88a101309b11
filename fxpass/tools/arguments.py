"""What commands have in common: arguments, and how they fail."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, NoReturn

import typer

TargetName = Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="Returns (callable, args, kwargs).")]
Calls = Annotated[int, typer.Option(min=1, help="How often the callable is called.")]
Grad = Annotated[bool, typer.Option("--grad", help="Call it with gradients enabled; they are disabled otherwise.")]


class Compiler(str, Enum):
    """The ``compiler`` option of the backend."""

    eager = "eager"
    aot_eager = "aot_eager"
    inductor = "inductor"


CompilerOption = Annotated[Compiler, typer.Option(help="What the rewritten graph is handed to.")]


def fail(message: str, status: int = 2) -> NoReturn:
    """End the command with one line on stderr."""
    typer.echo(f"kvfix: {message}", err=True)
    raise typer.Exit(status)
