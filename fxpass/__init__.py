"""kvfix: key/value caches sliced by a runtime number, compiled into one static decode step.

    torch.compile(model, backend="kvfix")

is all a user needs; the rest of this module is for looking at what happened.
"""

from fxpass.api import RewriteResult, explain, rewrite
from fxpass.errors import KvfixError, KvfixWarning
from fxpass.report import Report, Site
from fxpass.report.html import html
from fxpass.report.store import reports, reset
from fxpass.torch_internals.install import uninstall
from fxpass.verify.repro import repro

__all__ = [
    "KvfixError",
    "KvfixWarning",
    "Report",
    "RewriteResult",
    "Site",
    "explain",
    "html",
    "repro",
    "reports",
    "reset",
    "rewrite",
    "uninstall",
]
