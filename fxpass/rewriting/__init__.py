"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .buffers.extra_inputs import copy_inputs, give_numbers
from .buffers.fixed_rows import copy_fixed_rows
from .buffers.growth import Grower, Grown
from .buffers.windows import Windows
from .decisions import Decision, reason
from .driver import Rewritten, rewrite_graph
from .edits.floats import floats_as_tensors
from .edits.overwrites import mask_overwritten_rows
from .outside.around import Around
from .outside.cuts import Cuts
from .outside.dense import dense_results
from .outside.result_layout import lay_out_results

__all__ = ["Around", "Cuts", "Decision", "Grower", "Grown", "Rewritten", "Windows", "copy_fixed_rows", "copy_inputs",
           "dense_results", "floats_as_tensors", "give_numbers", "lay_out_results", "mask_overwritten_rows", "reason",
           "rewrite_graph"]  # fmt: skip
