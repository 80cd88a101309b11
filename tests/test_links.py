"""What README and docs link to is there."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_of_the_repository(page: pathlib.Path) -> None:
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = {ROOT / name for name in kept if name}
    known = files.union(*(f.parents for f in files))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    assert {link for link in links if link and (page.parent / link).resolve() not in known} == set()


def test_tests_that_limits_names_are_there() -> None:
    """The last column of each table in docs/limits.md: a link, or names of tests and of their parameters."""
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    rows = [line for line in (ROOT / "docs/limits.md").read_text().splitlines() if line.startswith("| ") and "| --" not in line]
    last = [row.rstrip(" |").rsplit(" | ", 1)[1] for row in rows if row.rstrip(" |").rsplit(" | ", 1)[1] != "test"]
    names = [name for cell in last for name in re.findall(r"`([^`]+)`", cell)]
    assert len(last) > 25 and not [cell for cell in last if ":" not in cell and "](" not in cell]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", written)] == []
