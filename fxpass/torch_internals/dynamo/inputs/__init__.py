"""The numbers among the inputs of a captured graph: where each comes from, and how it has moved."""
