"""What the site has beside the Markdown of docs/: README as its home page, files that are linked to, docstrings, figures.

A link is written so that it works on a code host, `[backend.py](../fxpass/backend.py)`. In the site it leads to a page under
source/, which shows the file; the one of a folder lists its files, each with the first sentence of its docstring. A comment
`<!-- figure: NAME -->` becomes a figure that `figures.py` draws from what is recorded.
"""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import figures  # noqa: E402

ROOT = Path(__file__).parents[2]
KEPT = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
HIDDEN = "---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, the page of docstrings, and a page for each file and folder that is linked to."""
    pages = {"index.md": (ROOT / "README.md").read_text(), "python.md": docstrings()}
    texts = [pages["index.md"], *(f.content_string for f in files.documentation_pages())]
    bases = ["", *(posixpath.dirname("docs/" + f.src_uri) for f in files.documentation_pages())]
    linked = {place(base, target) for text, base in zip(texts, bases, strict=True) for _, target, _ in LINK.findall(text)}
    linked |= {name for name in KEPT if name.startswith("fxpass/") and name.endswith(".py")} | folders("fxpass")
    linked |= {name for name in KEPT if name.startswith("benchmarks/results/")}
    for name in sorted(name for name in linked if not name.startswith("docs/") and name != "README.md"):
        if (ROOT / name).suffix == ".png":
            files.append(File.generated(config, "source/" + name, abs_src_path=str(ROOT / name)))
        elif (ROOT / name).is_dir():
            pages[f"source/{name}/index.md"] = listing(name)
        elif (ROOT / name).is_file():
            pages[f"source/{name}.md"] = shown(name)
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links out of docs/ to the pages under source/, and draw the figures that are asked for."""
    uri = page.file.src_uri
    base = "" if uri == "index.md" else posixpath.dirname("docs/" + uri)
    if uri.startswith("source/"):
        return markdown

    def led(link: re.Match[str]) -> str:
        opening, target, closing = link.groups()
        return opening + posixpath.relpath(in_site(place(base, target)), posixpath.dirname(uri) or ".") + closing

    return LINK.sub(led, figures.PLACE.sub(lambda found: figures.figure(found[1]), markdown))


def place(base: str, target: str) -> str:
    """Where a link from a page in the folder ``base`` of the repository leads to in it."""
    return posixpath.normpath(posixpath.join(base, target))


def in_site(name: str) -> str:
    """The page, or the file, of the site that stands for a file or folder of the repository."""
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if (ROOT / name).is_dir():
        return f"source/{name}/index.md"
    return f"source/{name}" + ("" if name.endswith(".png") else ".md")


def folders(top: str) -> set[str]:
    """``top`` and the folders below it."""
    return {posixpath.dirname(name) for name in KEPT if name.startswith(top + "/")}


def docstrings() -> str:
    """The page of all public names of the package, from their docstrings."""
    tree = ast.parse((ROOT / "fxpass/__init__.py").read_text())
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    lead = "All public names, from their docstrings. What options there are is in the [reference](api.md).\n"
    return "# Python API\n\n" + lead + "".join(f"\n::: fxpass.{name}\n" for name in ast.literal_eval(lists[0]))


def shown(name: str) -> str:
    """The page of a file."""
    text = (ROOT / name).read_text()
    language = {".py": "python", ".json": "json", ".sh": "bash", ".toml": "toml"}.get((ROOT / name).suffix, "text")
    numbers = ' linenums="1"' if language != "json" else ""
    return f"{HIDDEN}# {crumbs(name)}\n\n~~~~~~ {{ .{language}{numbers} }}\n{text}\n~~~~~~\n"


def listing(name: str) -> str:
    """The page of a folder: its folders and files, each with the first sentence of its docstring."""
    inside = sorted({entry.removeprefix(name + "/").split("/")[0] for entry in KEPT if entry.startswith(name + "/")})
    rows = ["| | |", "|---|---|"]
    for entry in inside:
        path, folder = f"{name}/{entry}", (ROOT / f"{name}/{entry}").is_dir()
        linked = name.startswith("fxpass") and (folder or entry.endswith(".py"))
        target = f"{entry}/index.md" if folder else f"{entry}.md"
        rows.append(f"| {f'[`{entry}`]({target})' if linked else f'`{entry}`'} | {summary(path)} |")
    return f"{HIDDEN}# {crumbs(name)}\n\n{summary(name)}\n\n" + "\n".join(rows) + "\n"


def summary(name: str) -> str:
    """The first sentence of a module's docstring, or of a package's; empty without one."""
    path = ROOT / name / "__init__.py" if (ROOT / name).is_dir() else ROOT / name
    if path.suffix != ".py" or not path.is_file():
        return ""
    said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(said.split()).replace("|", "\\|").replace("<", "&lt;")


def crumbs(name: str) -> str:
    """The path of a file, with a break allowed after each folder."""
    return "`" + "`/<wbr>`".join(name.split("/")) + "`"
