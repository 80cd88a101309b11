"""What was found and done: one `Report` per compiled graph, with one `Site` per place that uses a position.

    a report            model, site; made by sites, kept and told of by store, sent to torch's tools by channels
    a graph as text     drawing, of kept_nodes; readable, excerpt
    printed             text, explanation, explanation_text; progress while kvfix compiles; html for a browser
    words               names, symbols, value_types, memory_sizes; lazy makes what is asked for
"""

from .model import Report
from .site import Site

__all__ = ["Report", "Site"]
