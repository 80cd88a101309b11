"""What README and docs link to is there."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_of_the_repository(page: pathlib.Path) -> None:
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = {ROOT / name for name in kept if name}
    known = files.union(*(f.parents for f in files))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    assert {link for link in links if link and (page.parent / link).resolve() not in known} == set()


def test_tests_that_limits_names_are_there() -> None:
    """The column "test" of the tables in docs/limits.md: a link, or names of tests and of their parameters."""
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    cells: list[str] = []
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / "docs/limits.md").read_text(), re.M):
        rows = [line.strip("| ").split(" | ")[-1] for line in table.splitlines()]
        cells += rows[2:] if rows[0] == "test" else []
    assert len(cells) > 25 and [cell for cell in cells if ":" not in cell and "](" not in cell] == []
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", written)] == []
