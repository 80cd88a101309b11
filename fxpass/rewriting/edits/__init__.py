"""The edits of a graph, one kind in each file."""
