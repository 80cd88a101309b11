"""The report as one HTML page: both graphs side by side, layers folded, what a position reaches highlighted.

slots     which nodes of the two graphs stand on one place of the picture
folds     modules, parts and runs of equal layers as groups that open and close
paths     the nodes that lie between a position, its slice and what consumes it
model     the page's data, made of a report
write     the file: the data, the page's own files (``page/``), and the libraries that lay it out and draw it (``vendor/``)
"""

from .write import html

__all__ = ["html"]
