"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .decisions import Decision, reason
from .driver import Rewritten, rewrite_graph
from .growth import Around, Grower, Grown
from .overwrites import mask_overwritten_rows

__all__ = ["Around", "Decision", "Grown", "Rewritten", "Grower", "mask_overwritten_rows", "reason", "rewrite_graph"]
