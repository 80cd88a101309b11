"""What a call of a compiled graph runs: its parts in order, what goes between them, and the graph as it came if one fails."""
