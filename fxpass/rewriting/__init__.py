"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .decisions import Decision, reason
from .driver import Rewritten, rewrite_graph
from .fixed_rows import copy_fixed_rows
from .growth import Around, Grower, Grown, give_numbers
from .overwrites import mask_overwritten_rows

__all__ = ["Around", "Decision", "Grower", "Grown", "Rewritten", "copy_fixed_rows", "give_numbers", "mask_overwritten_rows",
           "reason", "rewrite_graph"]  # fmt: skip
