"""What was found and done: one `Report` per compiled graph, with one `Site` per place that uses a position."""

from .model import Report
from .site import Site

__all__ = ["Report", "Site"]
