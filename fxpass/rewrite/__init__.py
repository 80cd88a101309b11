"""The rewrite: find the sites, follow the extents, then make every edit in one sweep in program order."""

from .driver import Decision, Rewritten, rewrite_graph

__all__ = ["Decision", "Rewritten", "rewrite_graph"]
