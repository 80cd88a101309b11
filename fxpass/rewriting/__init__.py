"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .decisions import Decision
from .driver import Rewritten, rewrite_graph
from .overwrites import mask_overwritten_rows

__all__ = ["Decision", "Rewritten", "mask_overwritten_rows", "rewrite_graph"]
