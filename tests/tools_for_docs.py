"""Pages of docs/ that are printed from the code, and tables in others: ``python tests/tools_for_docs.py`` writes them."""

from __future__ import annotations

import ast
import pathlib
import re
from collections import defaultdict

from fxpass.reasons import REASONS
from fxpass.torch_internals.attributes import ATTRIBUTES
from fxpass.torch_internals.contracts import RELEASES, TABLE, Feature

ROOT = pathlib.Path(__file__).parents[1]
PARTED = ("fxpass/torch_internals/dynamo", "fxpass/rewriting", "fxpass/execute", "fxpass/kernels")
"""The packages whose rooms have a table in docs/rooms.md."""

HEAD = f"""# What kvfix uses of torch that is not public

Only [`fxpass/torch_internals`](../fxpass/torch_internals) uses what is private in torch, or replaces a function of it. This
page is printed from the table in [`contracts.py`](../fxpass/torch_internals/contracts.py), which the code itself goes through:
`internal(name)` gives an object, `patch(name, hook)` replaces a function. Importing `fxpass` replaces nothing;
`torch.compile(backend="kvfix")` does, and `fxpass.uninstall()` puts all back.

When a feature is first used, its names are looked up, and the parameters of what is called or replaced are compared. A name
that is missing, or has other parameters, costs the feature that needs it, with one warning. The table was made for torch
{", ".join(RELEASES)}; on another release every feature that replaces something stays off.
"""

ATTRIBUTES_HEAD = """## Private attributes

These attributes of torch's objects are read, and some of them set. Whether one is there shows when it is used. Without it,
what uses it fails, which is contained as any other fault: the graph runs as it came, or is captured as stock captures it, and
a warning names the attribute.

| attribute | what it tells |
|---|---|"""

OWN_WAYS = {
    "the `reset` attribute of a backend": ("a hook before `torch._dynamo.reset_code_state`",
                                           "only the first reset after a `torch.compile` calls it"),
    "`torch.compiler.disable`": ("`skip_code` (`dynamo/guards/functions.py`)",
                                 "it puts a function of its own around ours, which a guard would call in each step"),
    "`Graph.eliminate_dead_code(is_impure_node=)`": ("`aliases.remove_dead`",
                                                     "it checks the whole graph each time, and cuts subgraphs by another rule"),
    "`FakeTensorUpdater`": ("`graph.propagate`", "it is private, and supposes that inputs and outputs stay as they are"),
}  # fmt: skip
"""What torch has and kvfix does otherwise: how, and why."""


def users() -> dict[str, set[str]]:
    """For each name of the table, the files that ask for it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "fxpass").rglob("*.py")):
        if file.name == "contracts.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and node.value in TABLE:
                found[node.value].add(str(file.relative_to(ROOT / "fxpass" / "torch_internals")))
    return found


def internals_page() -> str:
    """The text of docs/torch-internals.md."""
    files, lines = users(), [HEAD]
    for feature in Feature:
        rows = [row for row in TABLE.values() if row.feature is feature]
        lines += [f"## {feature.name.title()}", "", f"Without one of these, {feature.value}.", ""]
        lines += ["| name | used by | releases | parameters |", "|---|---|---|---|"]
        for row in rows:
            releases = f"{row.since or RELEASES[0]} to {row.until or RELEASES[-1]}"
            parameters = row.signature() or row.why
            used = ", ".join(f"`{file}`" for file in sorted(files[row.name]))
            lines.append(f"| `{row.name}` | {used} | {releases} | {parameters} |")
        lines.append("")
    lines += [ATTRIBUTES_HEAD, *(f"| `{name}` | {what} |" for name, what in ATTRIBUTES.items()), ""]
    lines += ["## Own ways", "", "Of what torch offers, this is done otherwise:", ""]
    lines += ["| torch's | here | why |", "|---|---|---|"]
    lines += [*(f"| {of} | {how} | {why} |" for of, (how, why) in OWN_WAYS.items()), ""]
    return "\n".join(lines)


TROUBLES = """# Troubleshooting

What kvfix says begins with an id. Look for it below: each section has the message, and what you can do. Unless a section says
otherwise, only speed is concerned, and the numbers are eager's.

| what happens | what to do |
|---|---|
| a warning | look up its id; it names your line of code |
| no warning, and it is slow | [`kvfix explain`](api.md#the-command-line): what runs where, and why there is another graph |
| you want to see the graphs | `kvfix explain ... --html FILE` writes a [page](api.md#the-page) |
| other numbers than eager's, or an error | [switch layers off](#which-layer-makes-a-difference) |
| you want an error in place of a warning | `options={"strict": True}` or `KVFIX_STRICT=1` |

What cannot be rewritten at all is listed in [limits](limits.md). This page is printed from
[`fxpass/reasons.py`](../fxpass/reasons.py), and a test holds a program for each section.

## Which layer makes a difference

Where numbers, or an error, are not what eager gives, switch layers off one after the other, from the outermost:

1. `options={"recording": False}` or `KVFIX_RECORDING=0`: no CUDA graph. If that mends it, memory was reused in use.
2. `options={"kernels": False}` or `KVFIX_KERNELS=0`: Inductor's kernels in place of kvfix's own.
3. `options={"compiler": "aot_eager"}`, then `"eager"`: no Inductor. If it helps, see what stock `torch.compile` gives.
4. `options={"rewrite": False}` or `KVFIX_REWRITE=0`: graphs go on as they were captured. If that mends it, it is the rewrite.
5. What is left is capture: `torch.compile(model, backend="aot_eager")`.

`options={"verify": 3}` compares the first calls of each graph with the graph as it came, and writes a script for the first
difference; `fxpass.repro(report)` writes one for any graph.
"""
CHAPTERS = {
    "0": ("A graph runs as it came", "Nothing in it is rewritten: it is compiled as stock `torch.compile` would."),
    "1": ("A slice stays as it was", "What depends on it runs beside the static core; the rest of the graph is rewritten."),
    "2": ("Outside of the static core", "This part of a step is launched kernel by kernel, since its sizes move."),
    "3": ("More graphs", "A decode loop needs two: one for the prompt, and one for all steps."),
    "4": ("Compilation, recordings and copies", "How the core is run, and what that costs."),
    "5": ("torch's precompile cache", "The model runs as without the cache."),
    "6": ("This torch", "A part of kvfix is off in this process, or has failed once."),
    "7": ("Wrong numbers", "This is what `verify` says."),
}


def troubleshooting_page() -> str:
    """The text of docs/troubleshooting.md."""
    lines, chapter = [TROUBLES], ""
    for reason in REASONS.values():
        if reason.id[2] != chapter:
            chapter = reason.id[2]
            title, meaning = CHAPTERS[chapter]
            lines += [f"## {title}", "", meaning, ""]
        says = re.sub(r"{(\w+)}", r"*\1*", reason.says)
        numbers = ["**Numbers are concerned.**", ""] if reason.concerns == "numbers" else []
        lines += [f"### {reason.id}", "", f"> {says}", "", *numbers, reason.do, ""]
    return "\n".join(lines)


def rooms(of: str = "fxpass") -> dict[str, list[pathlib.Path]]:
    """The files of each room of the package at ``of``, by the room's path. What lies on the package's own floor is one, too."""
    package = ROOT / of
    inner = sorted(folder for folder in package.iterdir() if (folder / "__init__.py").exists())
    return {of: [*package.glob("*.py")], **{f"{of}/{folder.name}": [*folder.rglob("*.py")] for folder in inner}}


def all_rooms() -> dict[str, list[pathlib.Path]]:
    """The rooms of fxpass, and those of the packages that are parted, by their paths."""
    return {**{path: files for of in PARTED for path, files in rooms(of).items() if path != of}, **rooms()}


def _lines(files: list[pathlib.Path]) -> list[int]:
    return [len(file.read_text().splitlines()) for file in files]


def with_rooms(page: str) -> str:
    """The text ``page`` of docs/rooms.md with the files and lines that each room has now."""
    for path, files in all_rooms().items():
        row = re.compile(rf"^(\| \[`\w+`\]\(\.\./{path}\) \| [^|]* \| )\d+, \d+ \|", re.M)
        page = row.sub(rf"\g<1>{len(files)}, {sum(_lines(files))} |", page)
    every = [n for files in rooms().values() for n in _lines(files)]
    return re.sub(r"^\| all \| \| \d+, \d+ \|", f"| all | | {len(every)}, {sum(every)} |", page, flags=re.M)


if __name__ == "__main__":
    (ROOT / "docs" / "troubleshooting.md").write_text(troubleshooting_page())
    (ROOT / "docs" / "torch-internals.md").write_text(internals_page())
    counted = ROOT / "docs" / "rooms.md"
    counted.write_text(with_rooms(counted.read_text()))
