"""An `Explanation` for a terminal: each graph, each of its sites with the user's line, what is left, what stock does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from fxpass import reasons

from .explanation import Explanation
from .memory_sizes import in_words
from .model import Report
from .names import shortened, user_name
from .site import Site
from .symbols import renamed
from .text import STYLE

_PLURAL = re.compile(r"(?<=ch)es\b|s\b")
_SAME = re.compile(r"^(\w+) = \1\b")
"""A number that has the name which its symbol has been given."""
_LEFT = "functions left to eager"


def rendered(explanation: Explanation) -> Group:
    """The text of ``explanation``, for `rich.console.Console.print`."""
    blocks: list[RenderableType] = []
    for report in explanation.reports:
        why = [line for text in explanation.why(report) for line in _reason(text)]
        blocks += [_headline(report), *why, *_sites(report), Text()]
    for text in explanation.breaks:
        blocks += [Text("before any graph", "bold"), *_reason(text), Text()]
    return Group(*blocks, *_totals(explanation))


def _headline(report: Report) -> Text:
    parts = "".join(f", {name} ({ops} ops{', static' if static else ''})" for name, static, ops in report.parts)
    said = f" [{report.compile_id}]: {_found(report)}" + (f"; {parts[2:]}" if parts else "")
    return Text.assemble((report.name, "bold"), said)


def _found(report: Report) -> str:
    if report.sites:
        return f"{report.rewritten} rewritten, {report.refused} refused"
    is_looked_at = not report.unfit and reasons.OFF.text() not in report.notes
    return "nothing depends on a position" if is_looked_at else "runs as it came"


def _reason(text: str) -> Iterator[Text]:
    reason = reasons.of(text)
    quiet = reason is None or reason is not reasons.PINNED and reason.id[2] in "34"
    yield Text("  " + user_name(shortened(text)), style="" if quiet else "bold red")
    if not quiet:
        yield from _advice(text)


def _advice(text: str) -> Iterator[Text]:
    """What a user can do about the reason ``text``."""
    if reason := reasons.of(text):
        yield Text("    " + reason.advice, style="dim")


def _sites(report: Report) -> Iterator[Text]:
    """Each site. Those of other layers that are like it are only counted."""
    for group in report.alike:
        yield from _site(report, group[0], len(group) - 1)


def _site(report: Report, site: Site, more: int) -> Iterator[Text]:
    dim = "" if site.dim is None else f", dim {site.dim}"
    buffer = f" of {site.buffer}: {renamed(site.size, report.names)}{dim}" if site.buffer else ""
    others = f", and {more} like it" if more else ""
    yield Text.assemble(("  " + site.kind, "bold"), buffer, others, ": ", (site.decision, STYLE[site.decision]))
    if site.source:
        yield Text(f"    {shortened(site.source)}  {site.code}".rstrip())
    chain = [renamed(shortened(link), report.names) for link in site.chain or [site.position]]
    yield Text("    " + " -> ".join(_SAME.sub(r"\1", link) for link in chain), style="dim")
    if site.reason:
        yield Text("    " + shortened(site.reason), style="bold red")
        yield from _advice(site.reason)
    if site.cost and site.cost.now != site.cost.before:
        now, before = in_words(site.cost.now), in_words(site.cost.before)
        yield Text(f"    reads {now} a step in place of {before}, beside a mask of {in_words(site.cost.mask)}")


def _totals(explanation: Explanation) -> Iterator[Text]:
    before, now, masks = explanation.bytes_read()
    if before:
        said = f"{in_words(now)} of caches, {in_words(before)} as written; masks {in_words(masks)}"
        yield Text(f"A step of the last graph reads {said}.")
    yield Text("kvfix: " + _counted(explanation.counts))
    if explanation.stock is not None:
        error = explanation.stock.get("error")
        yield Text(f"stock torch.compile failed: {error}" if error else "stock torch.compile: " + _counted(explanation.stock))


def _counted(counts: Mapping[str, object]) -> str:
    counted = ((value, _PLURAL.sub("", name, count=1) if value == 1 else name) for name, value in counts.items())
    return ", ".join(f"{value} {name}" for value, name in counted if value is not None and (value or name != _LEFT))
