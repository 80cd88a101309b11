"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .around import Around
from .decisions import Decision, reason
from .dense import dense_results
from .driver import Rewritten, rewrite_graph
from .extra_inputs import copy_inputs, give_numbers
from .fixed_rows import copy_fixed_rows
from .floats import floats_as_tensors
from .growth import Grower, Grown
from .overwrites import mask_overwritten_rows
from .result_layout import lay_out_results
from .windows import Windows

__all__ = ["Around", "Decision", "Grower", "Grown", "Rewritten", "Windows", "copy_fixed_rows", "copy_inputs", "dense_results",
           "floats_as_tensors", "give_numbers", "lay_out_results", "mask_overwritten_rows", "reason",
           "rewrite_graph"]  # fmt: skip
