"""Where torch's own tools look: the log under ``TORCH_LOGS`` and the trace that tlparse reads.

    TORCH_LOGS="fxpass"         one report a graph, as a table
    TORCH_LOGS="+fxpass"        the code before and after, too
    TORCH_TRACE=/tmp/trace      artifacts kvfix_before, kvfix_after and kvfix_report at each compilation

The log is the standard library's, called ``fxpass``; torch lets ``TORCH_LOGS`` name any module's.
"""

from __future__ import annotations

import logging

from fxpass.torch_internals.dynamo.names import trace_structured

from .model import Report

_logger = logging.getLogger("fxpass")


def publish(report: Report) -> None:
    """Log ``report``, and put it into the trace, where either is asked for."""
    try:
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("%s", report)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("%s, before:\n%s\nafter:\n%s", report.name, report.before, report.after)
        for name in ("before", "after", "report"):
            _trace(report, name)
    except Exception as error:  # a fault of ours must not cost the user the call
        _logger.warning("kvfix: %s cannot be shown", report.name, exc_info=error)


def _trace(report: Report, name: str) -> None:
    def text() -> str:
        return str(report) if name == "report" else getattr(report, name)

    trace_structured("artifact", metadata_fn=lambda: {"name": f"kvfix_{name}", "encoding": "string"}, payload_fn=text)
