"""What compiles a part of a graph, and how compilations run side by side."""
