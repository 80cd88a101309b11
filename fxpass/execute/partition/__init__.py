"""How a graph is cut: a dynamic prologue, a static core, a dynamic epilogue, layers that repeat."""
