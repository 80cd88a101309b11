"""What was found and done: one `Report` per compiled graph, with one `Site` per place that uses a position."""

from .model import Report, Site
from .readable import readable

__all__ = ["Report", "Site", "readable"]
